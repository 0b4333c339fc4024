# The front door. It calls the tools; what there is to do is in Snakefile and artifact/jobs.py.
#   make reproduce PROFILE=demo    make test    make lab
.DEFAULT_GOAL := help
PROFILE ?=
EXECUTOR ?=
SHELL := /bin/bash

# An active conda environment made from environment.yml is used, with the packages of requirements-nodeps.lock added; else .venv, made by uv from the exact pins.
ifeq ($(CONDA_DEFAULT_ENV),mmc)
PYTHON := "$$CONDA_PREFIX"/bin/python
READY := conda
INSTALL := $(PYTHON) -m pip install --quiet
else
PYTHON := .venv/bin/python
READY := .venv/ready
INSTALL := $(if $(shell command -v uv),uv,$(PYTHON) -m uv) pip install --quiet --python $(PYTHON)
endif
# Without an NVIDIA driver PyTorch's CPU build will do, without CUDA's libraries; TORCH=cuda where the driver is on other machines only.
TORCH ?= $(if $(or $(shell command -v nvidia-smi),$(wildcard /proc/driver/nvidia /dev/nvidiactl)),cuda,cpu)
# Nine processes of one demo import the same libraries, which are compiled once, also where the shell asks Python to keep no bytecode (as
# images of containers do).
export PYTHONDONTWRITEBYTECODE :=
# Through the environment, where nothing in it is code; a name in a file of make's own (PROFILE=$(shell ...)) is not expanded.
export MMC_PROFILE := $(value PROFILE)
export MMC_EXECUTOR := $(value EXECUTOR)
WITH_PROFILE := $${MMC_PROFILE:+--profile "$$MMC_PROFILE"}
WITH_EXECUTOR := $${MMC_EXECUTOR:+--executor "$$MMC_EXECUTOR"}

# A notebook's kernel starts in the notebook's folder, from which a relative name means another place than from here.
ABSOLUTE := for name in MMC_RESULTS MMC_CHECKPOINTS MMC_DATA; do case "$${!name}" in ""|/*|"~"*) ;; *) export "$$name=$$PWD/$${!name}";; esac; done

.PHONY: help setup reproduce figures report test torture slurm docs lint lab bench clean

help:  ## this list
	@echo "make TARGET [PROFILE=demo|quick|cpu|paper|FILE.yaml] [EXECUTOR=local|slurm]"
	@awk -F ':.*## ' '/^[a-z]+:.*##/ { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PROFILE is demo where none is named: minutes, no data set. MMC_DATA, MMC_RESULTS and MMC_CHECKPOINTS name other folders than"
	@echo "data/, results/ and checkpoints/. All else: $(PYTHON) -m artifact --help"

setup: $(READY)  ## make the environment (every target that needs it does so by itself)

# A finished environment says where it was made: in a copied or moved folder, or broken off, it is made anew (a link is left alone).
ifeq ($(READY),.venv/ready)
ifeq ($(shell test -L .venv || ! test -s .venv/ready || test "$$(cat .venv/ready)" = "$$(pwd -P)" || echo moved),moved)
$(READY): moved
endif
endif
.PHONY: moved
moved:
	@rm -f .venv/ready

# What the jobs import is compiled here, once: uv leaves that to the first import, and two jobs that start together would both do it.
LOCKS := requirements.lock requirements-cuda.lock requirements-nodeps.lock
.venv/ready: $(LOCKS) pyproject.toml
	@if command -v uv > /dev/null; then test -e $@ || uv venv --quiet --clear --python '>=3.11' .venv; \
	 else python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"python3 is {sys.version.split()[0]}; Python 3.11 or newer is needed")' \
	      && { test -e $@ || python3 -m venv --clear .venv; } && $(PYTHON) -m pip install --quiet uv; fi \
	 && { test "$(TORCH)" = cpu && { $(INSTALL) --torch-backend cpu -r requirements.lock 2> .venv/cpu-build.log \
	   || { echo "PyTorch's CPU build cannot be had here (.venv/cpu-build.log): taking the one with CUDA, which is larger and does as well"; \
	        false; }; } \
	   || $(INSTALL) -r requirements.lock -r requirements-cuda.lock; } \
	 && $(INSTALL) --no-deps -r requirements-nodeps.lock -e . \
	 && { $(PYTHON) -c 'import torch._dynamo, torchvision' & $(PYTHON) -c 'import artifact.report, ipykernel.kernelapp, snakemake.cli' \
	      && wait $$!; } && pwd -P > $@

# environment.yml cannot name packages that come without their dependencies; two comparisons are all that would be lacking.
.PHONY: conda
conda:
	@$(PYTHON) -c 'from importlib.metadata import version; version("torchattacks"); version("adv-lib")' 2> /dev/null \
	 || $(INSTALL) --no-deps -r requirements-nodeps.lock || echo "going on without torchattacks and adv-lib"

reproduce: $(READY)  ## every figure and table of a profile, ending with the verdict and the page's address
	@MMC_PARENT=$$PPID exec $(PYTHON) -m artifact reproduce $(WITH_PROFILE) $(WITH_EXECUTOR)

figures: $(READY)  ## draw figures and tables from the receipts that are there; computes nothing
	@$(PYTHON) -m artifact figures $(WITH_PROFILE)

report: $(READY)  ## every exhibit of a finished profile and the jobs behind it, in one HTML file
	@$(PYTHON) -m artifact report $(WITH_PROFILE)

test: $(READY)  ## unit tests, then every notebook rerun and compared
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal tests
	$(ABSOLUTE); OMP_NUM_THREADS=1 $(PYTHON) -m pytest --nbval --nbval-current-env notebooks

torture: $(READY)  ## kill, flip, edit and fill disks at random; ends with one line of counts
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.torture

slurm: $(READY)  ## a preemption, a time limit and a node's death on a real SLURM that this starts here (Debian: slurm-wlm, munge)
	@$(PYTHON) -c 'import snakemake_executor_plugin_slurm' 2> /dev/null || $(INSTALL) 'snakemake-executor-plugin-slurm>=2.8'
	$(PYTHON) -m tests.slurm

docs: $(READY)  ## the documentation as a site: notebooks as they are committed, the library's functions, the verdict
	@$(PYTHON) -c 'import furo, myst_nb' 2> /dev/null || $(INSTALL) -r requirements-docs.lock
	$(PYTHON) -m sphinx -q -W --keep-going -c docs . docs/_build/html && echo docs/_build/html/index.html

lint: $(READY)  ## ruff on everything, mypy on mmclib
	@$(PYTHON) -c 'import mypy' 2> /dev/null || $(INSTALL) -r requirements-docs.lock
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

lab: $(READY)  ## JupyterLab on the notebooks
	@$(ABSOLUTE); exec $(PYTHON) -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb

bench: $(READY)  ## speed against the field's libraries and a plain training loop, as ratios in one run
	$(PYTHON) -m artifact download mnist cifar10
	$(PYTHON) benchmarks/training.py
	$(PYTHON) benchmarks/training.py --architecture airbench
	$(PYTHON) benchmarks/accuracy.py
	$(PYTHON) benchmarks/time_to_accuracy.py
	$(PYTHON) benchmarks/attacks.py

clean:  ## remove what the demo made, or what PROFILE made; never a file that git tracks
	@p=$${MMC_PROFILE:-demo}; p=$${p%.yaml}; p=$${p%.yml}; \
	case "$$p" in */*|.*) echo "PROFILE names a profile, not a path" >&2; exit 1;; esac; \
	if test -n "$$MMC_RESULTS$$MMC_CHECKPOINTS"; then echo "what lies in MMC_RESULTS and MMC_CHECKPOINTS is left there"; fi; \
	if ! git ls-files > /dev/null 2>&1 && test "$$p" != demo && test "$${p%-rehearsal}" = "$$p"; then \
	 echo "git does not say here which files of $$p it tracks; remove what you made of results/$$p, figures/$$p, checkpoints/$$p and logs/$$p" >&2; \
	 exit 1; fi; \
	for folder in results figures checkpoints logs; do \
	 if test -n "$$(git ls-files -- ":(icase)$$folder/$$p" 2>/dev/null)"; then git clean -fdxq -- "$$folder/$$p"; else rm -rf -- "$$folder/$$p"; fi; \
	done; rm -rf .snakemake
