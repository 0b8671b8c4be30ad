# Requires Python 3.11 or 3.12. Every target but clean and help installs what it needs.

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
LOCKS := requirements_lock.txt requirements_lock_3.12.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train test test-slow smoke docs benchmark gpu-check lint lock format clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP) ## Install everything into .venv (PYTHON=... names another Python).

# Recreates an environment whose Python is broken or of another version, or that an earlier lock made
# (with the package tensorflow itself). The locks are complete, so pip resolves nothing. Only what warns
# while it is compiled is compiled here.
$(SETUP): $(LOCKS) pyproject.toml setup.py
	@$(RUN) -c 'import pip, sys, importlib.metadata as m; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) or "tensorflow" in {d.name for d in m.distributions()})' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null); \
	  case "$$found" in \
	    3.11.*|3.12.*) ;; \
	    *) echo "error: PYTHON must be a Python 3.11 or 3.12; got $(PYTHON), which is $${found:-not a working Python}. Name one: make $(or $(firstword $(MAKECMDGOALS)),setup) PYTHON=python3.12" >&2; exit 1 ;; \
	  esac; \
	  echo "Creating $(VENV) with Python $$found"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	}
	@lock=$$($(RUN) -c 'import sys; print(sys.argv[1 + (sys.version_info >= (3, 12))])' $(LOCKS)); \
	echo "Installing $$lock into $(VENV): over 2 GB, a minute or two the first time"; \
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r $$lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@cd $(VENV)/lib/python3.*/site-packages && ../../../bin/python -W ignore -m compileall -q gpflow tf_agents
	@echo "Installed: $$(du -sh $(VENV) | cut -f1) in $(VENV)"
	@touch $@

# pip-compile cannot leave out pins of a dependency: TF-Agents is appended. libclang is used by nothing.
lock: ## Make the lock of PYTHON from requirements.txt (with pip-tools, in a new environment).
	$(PYTHON) -m venv --clear .venv_lock
	.venv_lock/bin/python -m pip install --quiet --disable-pip-version-check 'pip<25.1' pip-tools
	lock=$$($(PYTHON) -c 'import sys; print(sys.argv[1 + (sys.version_info >= (3, 12))])' $(LOCKS)); \
	CUSTOM_COMPILE_COMMAND="make lock" .venv_lock/bin/pip-compile --quiet --generate-hashes \
	  --unsafe-package=tensorflow --unsafe-package=libclang --no-emit-find-links \
	  --no-emit-index-url --no-strip-extras --output-file=$$lock requirements.txt && \
	cat requirements_no_deps.txt >> $$lock
	rm -rf .venv_lock

train: setup ## Train on the pen task (configs/pen.flags); ARGS="--name=value ..." sets flags.
	$(RUN) launch/train.py --flagfile=configs/pen.flags $(ARGS)

# Files in alphabetical order, so that the integration tests, which take longest, do not come last.
test: lint ## Lint, then run all tests except the slow ones, in parallel.
	$(TESTING) -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test-slow: setup ## Run the slow tests.
	$(RUN) -m pytest -m slow

smoke: setup ## Train, resume, export and load a tiny policy.
	$(TESTING) tests/smoke.py

docs: $(DOCS_SETUP) ## Build the documentation into site/; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo site/index.html

$(DOCS_SETUP): $(SETUP)
	@$(RUN) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(VENV)/docs.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r $(VENV)/docs.txt
	@touch $@

benchmark: setup $(PEERS_SETUP) ## Measure speed, also of SB3 and SBX (in .venv_peers); on an idle machine.
	$(RUN) -m benchmarks $(ARGS)

gpu-check: setup ## Compare the loop of updates on a GPU with the CPU, and time it (needs a CUDA build).
	$(RUN) -m benchmarks.gpu_check

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

clean: ## Remove caches and build outputs; keep environments, runs/ and exported/.
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT
	find benchmarks nppac_tf launch tests -name __pycache__ -type d -prune -exec rm -rf {} +
