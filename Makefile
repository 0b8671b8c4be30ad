# Requires Python 3.11. Every target but clean and help installs what it needs.

PYTHON ?= python3
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
# One thread per test process.
TESTING := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(RUN)
SETUP := $(VENV)/.setup-done
DOCS_SETUP := $(VENV)/.docs-done
PEERS := .venv_peers
PEERS_SETUP := $(PEERS)/.setup-done

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train test test-slow docs benchmark lint format clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP) ## Install everything into .venv (PYTHON=... names another Python 3.11).

# Recreates an environment whose Python is broken or of another version.
$(SETUP): requirements_lock.txt pyproject.toml
	@$(RUN) -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null); \
	  case "$$found" in \
	    3.11.*) ;; \
	    *) echo "error: PYTHON must be a Python 3.11; got $(PYTHON), which is $${found:-not a working Python}. Name one: make $(or $(firstword $(MAKECMDGOALS)),setup) PYTHON=python3.11" >&2; exit 1 ;; \
	  esac; \
	  echo "Creating $(VENV) with Python $$found"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	}
	@echo "Installing requirements_lock.txt into $(VENV): a minute or two the first time"
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements_lock.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

train: setup ## Train on the pen task (configs/pen.flags); ARGS="--name=value ..." sets flags.
	$(RUN) launch/train.py --flagfile=configs/pen.flags $(ARGS)

test: lint ## Lint, then run all tests except the slow ones, in parallel.
	$(TESTING) -m pytest -n auto --maxprocesses=4 --dist=loadfile

test-slow: setup ## Run the slow tests.
	$(RUN) -m pytest -m slow

docs: $(DOCS_SETUP) ## Build the documentation into site/; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo site/index.html

$(DOCS_SETUP): $(SETUP)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

benchmark: setup $(PEERS_SETUP) ## Measure speed, also of SB3 and SBX (in .venv_peers); on an idle machine.
	$(RUN) -m benchmarks $(ARGS)

# The libraries that the benchmark compares with, in an environment of their own.
$(PEERS_SETUP): requirements_peers.txt | setup
	@echo "Installing requirements_peers.txt into $(PEERS): torch is large"
	@$(RUN) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements_peers.txt
	@touch $@

lint: setup ## Check style, format, types and the order of imports.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache

format: setup ## Fix what lint can fix, and format.
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean: ## Remove caches and build outputs; keep .venv, .venv_peers, runs/ and exported/.
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT
	find benchmarks nppac_tf launch tests -name __pycache__ -type d -prune -exec rm -rf {} +
