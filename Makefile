# make test    the fast tests          make demo    the demonstration, a quarter of an hour on two CPU cores
# make lint    style, types, floors       make clean   remove .venv and caches
#
# The first run creates .venv (PYTHON=python3.12 picks another interpreter). VENV=path uses an environment that
# exists already, as it is; one that does not exist is created there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -m "not slow" -n 2
DEMO_ARGS ?=

# The stamp makes a change of pyproject.toml reinstall .venv. A VENV of one's own is left alone when it is there.
STAMP := $(VENV)/.nnunet-osasis-installed
ifeq ($(origin VENV),file)
READY := $(STAMP)
else
READY := $(if $(wildcard $(BIN)/python),,$(STAMP))
endif

# Import the installed package, not whatever lies in the current folder: this way a wheel can be tested here too.
export PYTHONSAFEPATH := 1

.PHONY: test demo lint clean

test: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest $(PYTEST_ARGS)  # the workers share the cores

demo: $(READY)
	$(BIN)/osasis-demo $(DEMO_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache

$(STAMP): pyproject.toml setup.py osasis_build.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@
