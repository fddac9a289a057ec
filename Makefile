# make demo: set up and train the default network with k = 2.   make test: set up and run every test.
# make paper: every table and figure from the rows there are.   make notebooks: run them all, outputs and all.
PYTHON ?= python3
BIN := .venv/bin
# Two processes share the test files: most of a test's time is one core's, starting Python.
SHARED := -n 2 --dist loadfile

.PHONY: demo test test-fast lint paper notebooks

demo: .venv/installed
	$(BIN)/python -m hbo.fit --k 2

test: .venv/installed
	$(BIN)/python -m pytest $(SHARED)

test-fast: .venv/installed
	$(BIN)/python -m pytest $(SHARED) -m "not slow"

paper: .venv/installed
	$(BIN)/python -m hbo.analysis.paper

notebooks: .venv/installed
	$(BIN)/python -m hbo.analysis.notebooks

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
