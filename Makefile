# The front door. It calls the tools; what there is to do is in Snakefile and artifact/jobs.py.
#   make reproduce PROFILE=demo    make test    make lab
.DEFAULT_GOAL := help
PROFILE ?=
SHELL := /bin/bash

# An active conda environment made from environment.yml is used as it is; else .venv, made by uv from the exact pins.
ifeq ($(CONDA_DEFAULT_ENV),mmc)
PYTHON := "$$CONDA_PREFIX"/bin/python
READY :=
else
PYTHON := .venv/bin/python
READY := .venv/ready
endif
# Through the environment, where nothing in it is code; a name in a file of make's own (PROFILE=$(shell ...)) is not expanded.
export MMC_PROFILE := $(value PROFILE)
WITH_PROFILE := $${MMC_PROFILE:+--profile "$$MMC_PROFILE"}

.PHONY: help setup reproduce figures test torture lab bench clean

help:  ## this list
	@echo "make TARGET [PROFILE=demo|quick|cpu|paper]"
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

setup: $(READY)  ## make the environment (every other target does so by itself)

# A finished environment says where it was made: in a copied or moved folder, or broken off, it is made anew (a link is left alone).
ifneq ($(READY),)
ifeq ($(shell test -L .venv || ! test -s .venv/ready || test "$$(cat .venv/ready)" = "$$(pwd -P)" || echo moved),moved)
$(READY): moved
endif
endif
.PHONY: moved
moved:
	@rm -f .venv/ready

.venv/ready: requirements.lock requirements-nodeps.lock pyproject.toml
	@if command -v uv > /dev/null; then UV=uv; test -e $@ || uv venv --quiet --clear --python '>=3.11' .venv; \
	 else UV='$(PYTHON) -m uv'; test -e $@ || python3 -m venv --clear .venv && $(PYTHON) -m pip install --quiet uv; fi; \
	 $$UV pip install --quiet --python $(PYTHON) -r requirements.lock \
	 && $$UV pip install --quiet --python $(PYTHON) --no-deps -r requirements-nodeps.lock -e . && pwd -P > $@

reproduce: $(READY)  ## every figure and table of a profile (default: paper with CUDA, else demo)
	@MMC_PARENT=$$PPID exec $(PYTHON) -m artifact reproduce $(WITH_PROFILE)

figures: $(READY)  ## draw figures and tables from the receipts that are there; computes nothing
	@$(PYTHON) -m artifact figures $(WITH_PROFILE)

test: $(READY)  ## unit tests, then every notebook rerun and compared
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --nbval --nbval-current-env notebooks

torture: $(READY)  ## kill, flip, edit and fill disks at random; ends with one line of counts
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.torture

lab: $(READY)  ## JupyterLab on the notebooks
	$(PYTHON) -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb

bench: $(READY)  ## speed against the field's libraries and a plain training loop, as ratios in one run
	$(PYTHON) benchmarks/training.py
	$(PYTHON) benchmarks/accuracy.py
	$(PYTHON) benchmarks/time_to_accuracy.py
	$(PYTHON) benchmarks/attacks.py

clean:  ## remove what the demo made, or what PROFILE made; never a file that git tracks
	@p=$${MMC_PROFILE:-demo}; case "$$p" in */*|.*) echo "PROFILE names a profile, not a path" >&2; exit 1;; esac; \
	for folder in results figures checkpoints logs; do \
	 if test -n "$$(git ls-files -- "$$folder/$$p" 2>/dev/null)"; then git clean -fdxq -- "$$folder/$$p"; else rm -rf -- "$$folder/$$p"; fi; \
	done; rm -rf .snakemake
