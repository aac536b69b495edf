# Everything runs from a fresh clone on a machine with Python 3.11 or newer: `make demo`, `make test`.
# Another interpreter: `make test PYTHON=/path/to/python`.   Other flags for pytest: `make test PYTEST_FLAGS="-x -k adam"`.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11

# Tracing is Python and runs on one core, so a process for each core pays; more than four only cost memory.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ "$$n" -gt 4 ] && echo 4 || echo "$$n")
PYTEST_FLAGS ?= -n $(JOBS) --dist worksteal

# LAPACK's threads wait for each other and for those of XLA.
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint types docs goldens bench experiments clean

help: ## list the commands
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.demo ## sweep 256 configurations on real data, judge the winner, and draw the picture in runs/tuning
	$(BIN)/python -m experiments.tuning

test: $(VENV)/.dev ## run every test, doctest and documentation block
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.dev ## check the style
	$(BIN)/ruff check .

types: $(VENV)/.dev ## check the types
	$(BIN)/pyright

docs: $(VENV)/.dev ## build the documentation in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

goldens: $(VENV)/.parity ## make the stored golden values anew (installs PyTorch)
	$(BIN)/python -m tests.parity.make_goldens

bench: $(VENV)/.dev ## time updates, training and sweeps against their peers
	$(BIN)/python -m experiments.benchmarks.updates
	$(BIN)/python -m experiments.benchmarks.memory
	$(BIN)/python -m experiments.benchmarks.training
	$(BIN)/python -m experiments.benchmarks.pipelines
	$(BIN)/python -m experiments.benchmarks.sweeps
	$(BIN)/python -m experiments.benchmarks.page

experiments: $(VENV)/.dev ## run every experiment in its reduced form, and say whose claim held
	$(BIN)/python -m experiments

clean: ## remove environments, caches and built pages; runs/ stays
	rm -rf .venv .venv312 build dist site *.egg-info .pytest_cache .hypothesis .ruff_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps .demo, .dev and .parity say which extras are installed; each is made anew only when pyproject.toml changes.

$(BIN)/python:
	@for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "jaxopt_lite needs Python 3.11 or newer; tried: $(or $(PYTHON),$(CANDIDATES)). Name one: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) || { \
	    rm -rf $(VENV); echo "$$python cannot make a virtual environment; on Debian and Ubuntu install python3-venv, or name another Python with PYTHON=" >&2; exit 1; \
	}

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing what the demo needs (a minute or two, once)"
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing everything that the tests need (a few minutes, once)"
	@$(PIP) install --editable '.[all,demo,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.parity: $(VENV)/.dev
	@echo "Installing PyTorch (a few minutes, once)"
	@$(PIP) install --editable '.[parity]'
	@touch $@
