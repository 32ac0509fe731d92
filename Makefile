# Each target sets up what it needs (tools/environment.sh) and works again without the network.
VENV := .venv
BIN := $(VENV)/bin
TARGETS := environment test lint lock sbom bench demo demo-stop
.PHONY: $(TARGETS)

ELSEWHERE := $(shell tools/elsewhere.sh)
ifneq ($(ELSEWHERE),)
$(TARGETS):
	@$(MAKE) --no-print-directory -C $(ELSEWHERE) $@
else

environment:
	@tools/environment.sh

# A file at a time on each of two processes: half the time on two cores, and no test meets another
# of its file.
test: lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: environment
	$(BIN)/python -m bench

demo:
	@tools/demo.sh start

demo-stop:
	@tools/demo.sh stop

# What the locked packages are, for who has to know of each (CycloneDX, JSON). Needs the network.
sbom: environment
	$(BIN)/uv tool run -q --system-certs --from cyclonedx-bom==7.5.0 cyclonedx-py requirements \
		--output-reproducible --output-file sbom.json requirements/development.txt

lock: environment
	$(BIN)/uv pip compile -q --system-certs setup.py --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate -o requirements/development.txt

endif
