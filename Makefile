# Each target sets up what it needs (tools/environment.sh) and works again without the network.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: environment test lint lock bench demo
environment:
	@tools/environment.sh

test: environment lint
	$(BIN)/pytest

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: environment
	$(BIN)/uv pip compile -q --system-certs setup.py --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate -o requirements/development.txt

bench: environment
	$(BIN)/python -m bench
