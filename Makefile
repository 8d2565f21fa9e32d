# The project's commands. They need git, make and Python 3.11 or newer; the rest goes into $(VENV).
# Written for GNU make 3.81 (macOS) and newer.
#
#   make test PYTHON=python3.13 VENV=/tmp/venv-313     another interpreter, another environment
#   make train ARGS="--epochs 3 --seed 7"              arguments of `stepgraph train`
#   make test JOBS=1 PYTEST_ARGS="-k relu -x"          arguments of pytest

SHELL := /bin/sh
VENV ?= .venv
JOBS ?= 2
BENCH ?= import_time
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# Tried in this order when PYTHON is not given; the first that is new enough and can make an
# environment is taken (a Debian python3 without python3-venv cannot).
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)

.DEFAULT_GOAL := help
.PHONY: help venv dev train test test-fast lint types contract doctest docs-check format bench \
        wheel demo clean distclean

help:  ## list these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# Stamps, so that nothing is installed twice. The environment is remade by `make distclean venv`.
$(VENV)/.made:
	@for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then \
	    echo "making $(VENV) with $$("$$candidate" --version) ($$candidate)"; \
	    "$$candidate" -m venv "$(VENV)" && touch "$@"; exit $$?; \
	  fi; \
	done; \
	echo "make: no Python 3.11 or newer that can make a virtual environment" >&2; \
	echo "  tried: $(CANDIDATES)" >&2; \
	echo "  fix: install one (on Debian and Ubuntu: python3 and python3-venv)," >&2; \
	echo "       or name one: make $(or $(MAKECMDGOALS),venv) PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.package: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable .
	@touch "$@"

$(VENV)/.dev: $(VENV)/.package
	$(PIP) install --quiet --editable '.[test,lint]'
	@touch "$@"

venv: $(VENV)/.package  ## make the virtual environment and install the package in it

dev: $(VENV)/.dev  ## the same, with what the tests and checks need

train: $(VENV)/.package  ## train ResNet-50 on real images (ARGS="..." as in `stepgraph train`)
	"$(BIN)/stepgraph" train $(ARGS)

$(VENV)/.demo: $(VENV)/.package demo/pyproject.toml
	$(PIP) install --quiet --editable demo
	@touch "$@"

demo: $(VENV)/.demo  ## open the demo: train in a window, and see it
	"$(BIN)/python" -m stepgraph_demo

test: lint types contract  ## every check, then every test and every example in the docs
	"$(BIN)/python" -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-fast: $(VENV)/.dev  ## the tests that take no more than a few seconds each
	"$(BIN)/python" -m pytest -n $(JOBS) -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## ruff: rules and format
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

types: $(VENV)/.dev  ## mypy --strict
	"$(BIN)/mypy"

contract: $(VENV)/.dev  ## which package may import which
	"$(BIN)/lint-imports"

doctest: $(VENV)/.dev  ## the examples in docstrings
	"$(BIN)/python" -m pytest src/stepgraph $(PYTEST_ARGS)

docs-check: $(VENV)/.dev  ## the examples and links in README.md and docs/
	"$(BIN)/python" -m pytest tests/test_docs.py $(PYTEST_ARGS)

format: $(VENV)/.dev  ## rewrite the code as ruff would have it
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

bench: $(VENV)/.dev  ## run benchmarks/$(BENCH).py (BENCH=name ARGS="...")
	"$(BIN)/python" "benchmarks/$(BENCH).py" $(ARGS)

wheel: $(VENV)/.made  ## build dist/stepgraph-*.whl
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/stepgraph-*.whl

clean:  ## remove what builds and checks leave behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find src tests benchmarks tools -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## the same, and the virtual environment
	rm -rf "$(VENV)"
