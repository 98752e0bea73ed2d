# The verbs of this project. Every one builds .venv first if it is not there; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Installed only where .venv has no torch. On Linux without an NVIDIA GPU take the CPU build:
#   make test TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := src tests scripts $(wildcard benchmarks)

# pip reads PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and its own configuration; nothing here overrides them.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# One thread a test worker: two cores, two workers.
test slow coverage: export OMP_NUM_THREADS := 1

.PHONY: help install demo tour test slow coverage lint format types layers docs docs-check proto check clean

help:        ## this list
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p; s/^\([a-z-]*\):  *## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

install: $(INSTALLED) ## .venv with everything in it

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11: set PYTHON to a newer one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(BIN)/python
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' \
	  || $(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## convert, check, distil and report a real model (about 15 minutes)
	$(BIN)/mindset demo $(ARGS)

tour: $(INSTALLED) ## facts into a real model and out again (two minutes)
	$(BIN)/mindset tour $(ARGS)

test: $(INSTALLED) ## all tests but the slow ones
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

slow: $(INSTALLED) ## the tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

coverage: $(INSTALLED) ## tests with branch coverage
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term-missing $(ARGS)

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(INSTALLED) ## mypy --strict
	$(BIN)/mypy

layers: $(INSTALLED) ## what may import what
	$(BIN)/lint-imports

docs: $(INSTALLED) ## write what is generated in docs/ and README.md
	$(BIN)/python scripts/generate_docs.py

docs-check: $(INSTALLED) ## say what of it is out of date
	$(BIN)/python scripts/generate_docs.py --check

proto: $(INSTALLED) ## generate messages from memory.proto and llm.proto
	$(BIN)/python -m grpc_tools.protoc -I src --python_out src --pyi_out src --grpc_python_out src \
	  src/mindset/store/daemon/memory.proto src/mindset/llm/serve/llm.proto

check: lint types layers docs-check test ## everything above, as CI does

clean:       ## remove caches, keep .venv
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov build dist
