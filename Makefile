# `make help` lists what can be made. Needs Python 3.11 or newer with pip, and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

.DEFAULT_GOAL := help
.PHONY: help setup demo check test reference bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.dev ## make .venv with chiasm (editable) and everything that tests need

demo: $(VENV)/.demo ## encode real photographs, draw them from the store alone; writes demo/
	$(BIN)/python examples/demo.py --out demo

check: $(VENV)/.dev ## ruff, mypy and the import rule
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check ## check, then pytest: what continuous integration runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

reference: $(VENV)/.dev ## write docs/reference.md from the docstrings
	$(BIN)/python docs/reference.py

bench: $(VENV)/.dev ## every benchmark, into benchmarks/results/
	mkdir -p benchmarks/results
	set -e; for file in benchmarks/*.py; do \
		$(BIN)/python $$file --json benchmarks/results/$$(basename $$file .py).json; \
	done

clean: ## remove the demo and every cache; .venv stays
	rm -rf demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The stamps: an environment is installed again when pyproject.toml changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "chiasm needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e '.[dev]'
	touch $(VENV)/.dev $(VENV)/.demo

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e '.[demo]'
	touch $(VENV)/.demo
