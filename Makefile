# Terrascape: two commands are enough.   make demo   |   make test
# Needs python 3.11 to 3.13 with pip, and make. Everything is installed into .venv, once.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
WORKERS ?= 2
PYTEST_ARGS ?=
PORT ?= 7860

.PHONY: demo studio test test-slow lint check format clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    install into .venv, render a place into outputs/ and print the files"
	@echo "make test    install the developer tools and run the tests"
	@echo "make studio  open the studio on http://127.0.0.1:$(PORT)"
	@echo "make check   formatting, lints, types, import layers, then all tests, the slow ones too"
	@echo "make format  let ruff rewrite the files;   make clean  remove .venv and caches"

# A Python without ensurepip (Debian's python3.11 without python3.11-venv) gets its pip from outside.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Terrascape needs python 3.11 to 3.13, $(PYTHON) is %d.%d: try make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install pip; }

# torch comes first and alone: left to the resolver it may pull a build several times larger.
$(CORE): pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV), once: a minute or more"
	$(BIN)/python -m pip install --disable-pip-version-check -q "$(TORCH)"
	$(BIN)/python -m pip install --disable-pip-version-check -q -e .
	@touch $@

$(DEV): $(CORE)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[dev]"
	@touch $@

demo: $(CORE)
	$(BIN)/terrascape render satellite --lat 45.98 --lon 7.66 --prompt "snowy alpine valley" \
		--layout auto --seed 7 --out outputs

studio: $(CORE)
	$(BIN)/python app.py --port $(PORT)

test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# What takes longer: two real processes, the launcher, a replay by another process, start-up times.
test-slow: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not network" $(PYTEST_ARGS)

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test test-slow

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
