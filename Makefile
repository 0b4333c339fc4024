# The front door. It calls the tools; what there is to do is in Snakefile and artifact/jobs.py.
#   make reproduce PROFILE=demo    make test    make lab
.DEFAULT_GOAL := help
PROFILE ?=
SHELL := /bin/bash

# An active conda environment made from environment.yml is used as it is; else .venv, made by uv from the exact pins.
ifeq ($(CONDA_DEFAULT_ENV),mmc)
PYTHON := $(CONDA_PREFIX)/bin/python
READY :=
else
PYTHON := .venv/bin/python
READY := .venv/ready
endif
WITH_PROFILE := $(if $(PROFILE),--profile $(PROFILE))

.PHONY: help setup reproduce figures test lab bench clean

help:  ## this list
	@echo "make TARGET [PROFILE=demo|quick|paper]"
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

setup: $(READY)  ## make the environment (every other target does so by itself)

.venv/ready: requirements.lock requirements-nodeps.lock pyproject.toml
	@if command -v uv > /dev/null; then UV=uv; test -x $(PYTHON) || uv venv --quiet --python '>=3.11' .venv; \
	 else test -x $(PYTHON) || python3 -m venv .venv; $(PYTHON) -m pip install --quiet uv; UV='$(PYTHON) -m uv'; fi; \
	 $$UV pip install --quiet --python $(PYTHON) -r requirements.lock \
	 && $$UV pip install --quiet --python $(PYTHON) --no-deps -r requirements-nodeps.lock -e . && touch $@

reproduce: $(READY)  ## every figure and table of a profile (default: paper with CUDA, else demo)
	@$(PYTHON) -m artifact reproduce $(WITH_PROFILE)

figures: $(READY)  ## draw figures and tables from the receipts that are there; computes nothing
	@$(PYTHON) -m artifact figures $(WITH_PROFILE)

test: $(READY)  ## unit tests, then every notebook rerun and compared
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --nbval --nbval-current-env notebooks

lab: $(READY)  ## JupyterLab on the notebooks
	$(PYTHON) -m jupyter lab notebooks

bench: $(READY)  ## speed against the field's libraries and a plain training loop, as ratios in one run
	$(PYTHON) benchmarks/training.py
	$(PYTHON) benchmarks/accuracy.py
	$(PYTHON) benchmarks/time_to_accuracy.py
	$(PYTHON) benchmarks/attacks.py

clean:  ## remove what a profile made (all but the committed record when no PROFILE is named)
	rm -rf $(foreach p,$(or $(PROFILE),demo quick),results/$(p) figures/$(p) checkpoints/$(p) logs/$(p)) .snakemake
