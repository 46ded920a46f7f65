# The two commands of the course are `make reports` and `make test`; `make help` lists the rest.
# A fresh machine needs Python 3.11-3.13 with pip and venv, and make; everything else goes into .venv.

PYTHON  ?= python3
# More options for pip, e.g. the index of a CPU-only or other CUDA build of torch (docs/gpu.md).
PIP_ARGS ?=
PROFILE ?= sample
DATA    ?=
ENCODER ?=
ONLY    ?=
SET     ?=
DEVICE  ?=
PRECISION ?=
MODEL   ?= runs/$(PROFILE)/viralbert
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
	@echo "make lock        resolve requirements.lock and environment.yml anew from pyproject.toml (maintainers)"
	@echo "make clean       remove runs/ and the built site; 'make clean-all' removes .venv too"

# The stamp is written last, so an interrupted installation is taken up again.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1). Use: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

reports: .venv/.installed
	@$(BIN)/viralbert run $(ARGS)
	@$(BIN)/viralbert report $(ARGS)

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processors: lint beside the notebooks, then two halves of the tests, a file always on one of them.
test: .venv/.installed
	@$(MAKE) --no-print-directory --jobs 2 lint smoke
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

smoke: .venv/.installed
	$(BIN)/viralbert run --profile smoke

lab: .venv/.installed
	$(BIN)/jupyter lab notebooks

serve: .venv/.installed
	@$(BIN)/viralbert serve --model '$(MODEL)' --port $(PORT)

check-env: .venv/.installed
	@$(BIN)/viralbert check-env

# A machine with a card often has a torch of its own: PYTHON names its environment, .venv is taken if it is there.
gpu-check:
	$(if $(filter file,$(origin PYTHON)),$(firstword $(wildcard $(BIN)/python) $(PYTHON)),$(PYTHON)) benchmarks/gpu.py

lock: .venv/.installed
	$(BIN)/python tools/lock.py

clean:
	rm -rf runs reports/site .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-all: clean
	rm -rf .venv
