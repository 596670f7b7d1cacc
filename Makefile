# `make demo` and `make test` do everything; whichever comes first makes the environment.
# PYTHON=/path/to/python picks another interpreter, with an environment of its own.

ifdef PYTHON
VENV := .venv-$(shell $(PYTHON) -c 'import platform; print(platform.python_version())')
else
PYTHON := python3
VENV := .venv
endif

BIN := $(VENV)/bin
READY := $(VENV)/.ready
FLOORS := .venv-floors
SITE := .venv-docs
# Two processes, since most of the time goes into compilation, which uses one core.
PYTEST := -m pytest --numprocesses=2 --dist=loadfile

# Whose numbers depend on what the compiler does: `make test-all` compiles them as users do. It
# checks the types and shapes of every call too.
NUMERICAL := spa_jax/alignment tests/alignment tests/dynamics tests/training/test_step.py \
  tests/training/test_parallel.py tests/training/test_resume.py tests/training/test_glmc_peer.py

.PHONY: demo test test-all test-device test-slow test-floors lint format docs clean

demo: $(READY)
	$(BIN)/python -m spa_jax.compare --config=configs/digits_lt.py --seeds=0,1,2 --out=runs/demo
	$(BIN)/python -m spa_jax.report runs/demo --out runs/demo/report

test: $(READY)
	$(BIN)/python $(PYTEST)

test-all: $(READY)
	$(BIN)/python $(PYTEST) -m 'not slow' --typed --optimized $(NUMERICAL)
	$(BIN)/python $(PYTEST) -m 'not slow' --typed $(NUMERICAL:%=--deselect=%)

# On the accelerator that jax finds there, without an environment of its own: what is marked so.
test-device:
	$(PYTHON) -m pytest -m device --optimized -W ignore tests/alignment/test_reference.py tests/training

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The oldest versions that requirements.txt allows, in an environment of their own.
test-floors:
	$(PYTHON) -m venv $(FLOORS)
	sed 's/>=/==/' requirements.txt > $(FLOORS)/floors.txt
	$(FLOORS)/bin/python -m pip install --quiet --constraint $(FLOORS)/floors.txt --editable '.[test]'
	$(FLOORS)/bin/python $(PYTEST)

# The site, in an environment of its own; a warning fails it. It is read from build/docs/index.html.
docs: $(SITE)/.ready
	$(SITE)/bin/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs

$(SITE)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "spa_jax needs Python 3.11 or newer, and $(PYTHON) is older or missing: make PYTHON=/path/to/python ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
