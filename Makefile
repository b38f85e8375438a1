# Everything runs in .venv, which `make install` makes (VENV=… puts it elsewhere); PYTHON picks the
# interpreter for it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test torture lint format tiny bench

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install blip2cli with what tests and lint need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "blip2cli needs Python 3.11 or newer; name one with: make install PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install ## caption the images in sample_images/ with the embedded model
	$(BIN)/blip2cli caption sample_images --model tiny

# One thread for each of the two workers: four threads on two cores wait for one another.
test: export OMP_NUM_THREADS = 1
test: install ## run the test suite
	$(BIN)/python -m pytest --numprocesses 2

SEED ?= 1
torture: install ## kill runs and fail system calls, thousands of times (an hour or two; or SEED=2)
	$(BIN)/python -m tests.torture.kills --seed $(SEED)
	$(BIN)/python -m tests.torture.faults
	$(BIN)/python -m tests.torture.corpora --full

lint: install ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

tiny: install ## train the embedded models again from nothing (five hours)
	$(BIN)/python -m training.train
	$(BIN)/python -m training.t5
	$(BIN)/python -m training.itm

RACES ?=
bench: install ## race against what people run today (about an hour; or RACES="caption-tiny startup")
	$(BIN)/python benchmarks/race.py $(RACES)
