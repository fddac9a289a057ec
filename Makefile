# make demo: set up and train the default network with k = 2.   make test: set up and run every test.
# make paper: every table and figure from the rows there are.   make notebooks: run them all, outputs and all.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint paper notebooks

demo: .venv/installed
	$(BIN)/python -m hbo.fit --k 2

test: .venv/installed
	$(BIN)/python -m pytest

test-fast: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

paper: .venv/installed
	$(BIN)/python -m hbo.analysis.paper

notebooks: .venv/installed
	$(BIN)/python -m hbo.analysis.notebooks

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
