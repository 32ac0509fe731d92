# Each target sets up what it needs (tools/environment.sh) and works again without the network.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: environment test lint bench demo
environment:
	@tools/environment.sh

test: environment lint
	$(BIN)/pytest

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: environment
	$(BIN)/python -m bench
