# make demo: set up and train the default network with k = 2.   make test: set up and run every test.
# make demo THREADS=1: with one thread, for a busy machine; it also resumes a demo that was stopped.
# make demo CONSTRAINTS=1: with the versions of constraints.txt, with which the tests last passed.
# make runtimes: environments for the runtimes whose pins differ, .venv-litert and .venv-executorch (6 GB each),
# .venv-openvino and .venv-ncnn; hbo.bench infer finds them.
# make paper: every table and figure from the rows there are.   make notebooks: run them all, outputs and all.
PYTHON ?= python3
BIN := .venv/bin
# Three processes share the test files on two cores: some tests wait for SLURM or W&B.
# Files in the order of tests/conftest.py, the long ones first: one that began last would have the end to itself.
# A process that crashes is not replaced: pytest-xdist would run the test again and may then wait for ever.
SHARED := -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: demo test test-fast lint paper notebooks runtimes

demo: .venv/installed
	$(BIN)/python -m hbo.fit --k 2 $(if $(THREADS),--threads $(THREADS))

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

runtimes: .venv-openvino/installed .venv-ncnn/installed .venv-litert/installed .venv-executorch/installed

# Without wandb: what LiteRT's converter needs (xdsl) and what wandb needs (cwevals) want typing-extensions below and from 4.14.
.venv-litert/installed: pyproject.toml
	$(PYTHON) -m venv .venv-litert
	.venv-litert/bin/python -c "import tomllib; all = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		extras = all['optional-dependencies']; \
		print(*[one for one in all['dependencies'] + extras['litert'] + extras['test'] if 'wandb' not in one], sep='\n')" \
		> .venv-litert/needs.txt
	.venv-litert/bin/python -m pip install --quiet -r .venv-litert/needs.txt
	.venv-litert/bin/python -m pip install --quiet --no-deps -e .
	touch $@

.venv-%/installed: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet -e '.[$*,test]'
	touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "installing; this takes a few minutes"
	$(BIN)/python -m pip install --quiet -e '.[dev]' $(if $(CONSTRAINTS),-c constraints.txt)
	touch $@
