# The two commands of the course are `make reports` and `make test`; `make help` lists the rest.
# A fresh machine needs Python 3.11-3.13 with pip and venv, and make; everything else goes into .venv.

PYTHON  ?= python3
# No lock names torch, so that a machine gets the build that fits it. PIP_ARGS are more options for pip when it takes
# torch, e.g. the index of the CPU build or of another CUDA version (docs/gpu.md).
TORCH   ?= torch==2.13.0
PIP_ARGS ?=
PROFILE ?= sample
DATA    ?=
ENCODER ?=
ONLY    ?=
SET     ?=
DEVICE  ?=
PRECISION ?=
MODEL   ?=
PORT    ?= 8000

BIN  := .venv/bin
ARGS := --profile $(PROFILE) $(if $(DATA),--data '$(DATA)') $(if $(ENCODER),--encoder '$(ENCODER)') \
        $(if $(ONLY),--only $(ONLY)) $(foreach pair,$(SET),--set $(pair)) \
        $(if $(DEVICE),--device $(DEVICE)) $(if $(PRECISION),--precision $(PRECISION))

.PHONY: reports test smoke lab serve check-env gpu-check lint clean clean-all lock help
.DEFAULT_GOAL := help

help:
	@echo "make reports     execute the notebooks and write the report; PROFILE= DATA= ENCODER= DEVICE= PRECISION= ONLY=03 SET=\"03.epochs=2\""
	@echo "make test        lint, types, unit tests, and every notebook on the smoke profile, as CI does"
	@echo "make lint, make smoke: its first two parts alone"
	@echo "make lab         JupyterLab on the notebooks"
	@echo "make serve       the predictor over HTTP, with a page to try it: MODEL=<folder> PORT=8000"
	@echo "make gpu-check   what the course does on a CUDA card, written to benchmarks/gpu.md (8 minutes)"
	@echo "make check-env   what is installed, what is missing, which device"
	@echo "make lock        resolve requirements*.lock anew from pyproject.toml; needs uv (maintainers)"
	@echo "make clean       remove runs/ and the built site; 'make clean-all' removes .venv too"

# Three installations share .venv: what the reports need, what JupyterLab makes use of beside it, and what the tests need. A stamp is written last, so
# an interrupted installation is taken up again. pip checks every file against the hashes of the lock.
define install
$(BIN)/python -m pip install --quiet --no-deps --requirement $(1)
$(BIN)/python -m pip install --quiet $(PIP_ARGS) '$(TORCH)'
$(BIN)/python -m pip install --quiet --no-deps --editable .
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1). Use: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.for-reports: requirements.lock pyproject.toml | $(BIN)/python
	$(call install,requirements.lock)
	@touch $@

.venv/.for-lab: requirements-lab.lock pyproject.toml | $(BIN)/python
	$(call install,requirements-lab.lock)
	@touch $@ .venv/.for-reports

.venv/.for-tests: requirements-test.lock pyproject.toml | $(BIN)/python
	$(call install,requirements-test.lock)
	@touch $@ .venv/.for-reports .venv/.for-lab

reports: .venv/.for-reports
	@$(BIN)/viralbert run $(ARGS)
	@$(BIN)/viralbert report $(ARGS)

lint: .venv/.for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry .

# Two processors: lint beside the notebooks, then two halves of the tests, a file always on one of them.
test: .venv/.for-tests
	@$(MAKE) --no-print-directory --jobs 2 lint smoke
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

smoke: .venv/.for-reports
	$(BIN)/viralbert run --profile smoke

# The settings of this repository: no news, no look for a newer version, no mark on a notebook that was only opened.
lab: .venv/.for-lab
	$(BIN)/jupyter lab --config=.jupyter/lab.py notebooks

serve: .venv/.for-reports
	@$(BIN)/viralbert serve $(if $(MODEL),--model '$(MODEL)') --port $(PORT)

check-env: .venv/.for-reports
	@$(BIN)/viralbert check-env

# A machine with a card often has a torch of its own: PYTHON names its environment, .venv is taken if it is there.
gpu-check:
	$(if $(filter file,$(origin PYTHON)),$(firstword $(wildcard $(BIN)/python) $(PYTHON)),$(PYTHON)) benchmarks/gpu.py

# Versions stay as they are where pyproject.toml allows it; `make lock UPGRADE=--upgrade` takes the newest.
lock:
	uv pip compile --quiet $(UPGRADE) pyproject.toml --all-extras --group dev -o requirements-test.lock
	uv pip compile --quiet pyproject.toml --extra serve --extra report -c requirements-test.lock -o requirements.lock
	uv pip compile --quiet pyproject.toml --extra serve --extra report --extra lab -c requirements-test.lock -o requirements-lab.lock
	uv pip compile --quiet --group image -c requirements-test.lock -o requirements-image.lock

clean:
	rm -rf runs reports/site .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-all: clean
	rm -rf .venv
