# One command each, on a machine with nothing but Python 3.11 or newer.
#   make demo       installs, trains centrally and federated, exports, checks and reports
#   make test       installs and passes the tests
#   make check      formatting, lint, types, import floors, doctests and tests: the whole gate
#   make test-slow  the suites that take minutes
#   make web        builds what `lepton export --web` puts into a page (needs Node 20)

PYTHON ?= python3
VENV ?= .venv
VERSION := $(shell $(PYTHON) -c 'import sys; print("py311" if sys.version_info < (3, 12) else "py312")')
CONSTRAINTS := constraints/$(VERSION).txt
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

WEB := lepton_jax/export/web

.PHONY: demo web test test-slow check format lint types floors clean

demo: $(VENV)/.all
	$(BIN)/lepton demo

web: $(WEB)/bundle/app.js

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"
	$(PYTEST) --doctest-modules lepton_jax federated

test-slow: $(VENV)/.dev $(if $(shell command -v npm),web)
	$(PYTEST) -m slow

check: lint types floors test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

floors: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: expected Python 3.11 or newer, got " + sys.version.split()[0] + "; set PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.all: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/.all
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	# The converter without TensorFlow has no build for every system; its tests are skipped there.
	-$(BIN)/python -m pip install --quiet --no-deps --requirement constraints/litert.txt
	touch $@

$(WEB)/bundle/app.js: $(WEB)/package-lock.json $(WEB)/build.mjs $(wildcard $(WEB)/src/*) $(wildcard $(WEB)/src/locales/*)
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build
	touch $@
