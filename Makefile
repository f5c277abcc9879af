# LWAP Explorer. `make` lists what there is; everything happens in a virtual environment of its own.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Files stay together on one worker, so a file's server or model is started once.
PYTEST_FLAGS ?= -n logical --maxprocesses=4 --dist loadfile
# A benchmark is bench/NAME.py; bench/_NAME.py is shared by several and does not run alone.
# bench/experiments.py trains for hours and goes on where it was ended: BENCH=bench/experiments.py.
BENCH ?= $(filter-out bench/_% bench/experiments.py,$(sort $(wildcard bench/*.py)))

VENV_PYTHON := $(VENV)/bin/python
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(VENV_PYTHON) -m pip install --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install app test test-fast lint format docs bench screenshots clean

help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  Variables: ARGS="extra flags", BENCH=bench/encode.py, PYTHON=$(PYTHON), VENV=$(VENV)'

install: $(DEV) ## make .venv and install everything, tests and linter included

app: $(RUNTIME) ## start the app; ARGS="--server.port 8600" and the like go to streamlit
	$(VENV_PYTHON) -m streamlit run app.py $(ARGS)

# The hub is never asked; one thread a worker, since the workers share the cores.
test test-fast: export HF_HUB_OFFLINE := 1
test test-fast: export OMP_NUM_THREADS ?= 1
ifeq ($(CI),true)
test: export LWAP_REQUIRE_BROWSER := 1
endif
test: $(DEV) ## run all tests, browser tests included; ARGS="-k pooling" and the like go to pytest
	$(VENV_PYTHON) -m pytest $(PYTEST_FLAGS) $(ARGS)

test-fast: $(DEV) ## run what is quick: no slow test, no browser
	$(VENV_PYTHON) -m pytest $(PYTEST_FLAGS) -m "not slow and not browser" $(ARGS)

lint: $(DEV) ## check style, format and types, change nothing
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

format: $(DEV) ## mend what can be mended by machine
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

docs: $(RUNTIME) ## write docs/cli.md, docs/library.md and the list of modules from the code
	PYTHONPATH="$(CURDIR)" $(VENV_PYTHON) docs/generate.py

bench: $(RUNTIME) ## run the benchmarks; BENCH=bench/encode.py for one of them
	@if [ -z "$(BENCH)" ]; then echo 'No benchmarks: bench/ holds no script.' >&2; exit 1; fi
	@for script in $(BENCH); do \
		echo "== $$script"; \
		PYTHONPATH="$(CURDIR)" $(VENV_PYTHON) "$$script" --json $(ARGS) || exit 1; \
	done

screenshots: $(DEV) ## take the pictures of the documentation anew (needs Chromium)
	PYTHONPATH="$(CURDIR)" $(VENV_PYTHON) tests/browser/screenshots.py $(ARGS)

clean: ## remove caches and build output; keeps .venv, runs and checkpoints
	rm -rf build dist ./*.egg-info .pytest_cache .ruff_cache .mypy_cache tests/browser/output
	find . -path './$(VENV)' -prune -o -type d -name __pycache__ -exec rm -rf {} +

# pip is the last thing that venv creates: without it the folder is an unfinished one, made again.
$(VENV)/bin/pip:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo 'No "$(PYTHON)" here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python' >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "LWAP Explorer needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." >&2; \
		echo 'Name a newer one: make PYTHON=/path/to/python' >&2; \
		exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# Stamps: as long as the requirements do not change, the next start waits for nothing.
$(RUNTIME): requirements.txt | $(VENV)/bin/pip
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt requirements.txt | $(VENV)/bin/pip
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $(RUNTIME) $@
