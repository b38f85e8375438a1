# Everything runs in .venv, which `make install` makes (VENV=… puts it elsewhere); PYTHON picks the
# interpreter for it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo reference dist man docs test test-fast test-slow test-lowest coverage equivalence torture lint format tiny peers bench

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv and install blip2cli with what tests and lint need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "blip2cli needs Python 3.11 or newer; name one with: make install PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# With an extra of pyproject.toml besides.
$(STAMP)-%: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,$*]'
	@touch $@

demo: install ## caption the images in sample_images/ with the embedded model
	$(BIN)/blip2cli caption sample_images --model tiny

PARALLEL := --numprocesses 2 --dist worksteal
# One thread for each of the two workers: four threads on two cores wait for one another.
test: export OMP_NUM_THREADS = 1
test: install ## run the tests but those of test-slow (about ten minutes)
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: export OMP_NUM_THREADS = 1
test-fast: install ## run the tests but those of slow files (about a minute)
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not external'

test-slow: export OMP_NUM_THREADS = 1
test-slow: $(STAMP)-external ## run those with Ray, object stores, a browser, and long ones (under 30 minutes)
	$(BIN)/python -m pytest -m external

LOWEST := build/lowest
test-lowest: export OMP_NUM_THREADS = 1
test-lowest: ## run the test suite with the oldest libraries that pyproject.toml allows (7 GB of them)
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
	$(LOWEST)/bin/python -m pytest $(PARALLEL)

coverage: export OMP_NUM_THREADS = 1
coverage: install ## run the test suite and fail if it reaches fewer lines than it did
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term:skip-covered --cov-report=html

OLD ?=
equivalence: install ## compare every kind of command with another version (OLD=path of its checkout)
	@test -n "$(OLD)" || { echo "name a checkout of the other version: make equivalence OLD=../old" >&2; exit 2; }
	$(BIN)/python -m tests.equivalence $(OLD) .

SEED ?= 1
torture: install ## kill runs and fail system calls, thousands of times (hours; or SEED=2)
	$(BIN)/python -m tests.torture.kills --seed $(SEED)
	$(BIN)/python -m tests.torture.store_kills --seed $(SEED) --faults
	$(BIN)/python -m tests.torture.commands --seed $(SEED)
	$(BIN)/python -m tests.torture.devices --seed $(SEED)
	$(BIN)/python -m tests.torture.gpu_memory --seed $(SEED)
	$(BIN)/python -m tests.torture.faults --jobs 2
	$(BIN)/python -m tests.torture.fuzz --seed $(SEED)
	$(BIN)/python -m tests.torture.ray --seed $(SEED)
	$(BIN)/python -m tests.torture.corpora --full

lint: install ## check style, formatting, types, and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	test ! -x $(BIN)/biome || $(BIN)/biome ci --error-on-warnings

# The same bytes wherever and whenever they are built: by the pinned backend, with the time of the commit.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: $(STAMP)-release ## build wheel and source distribution into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

reference: install ## write the pages of the reference that come from the declarations of the options
	$(BIN)/python docs/make_reference.py

man: install ## write the man pages into build/man, one a command
	$(BIN)/python docs/make_man.py

docs: $(STAMP)-docs ## build the site of the documentation in build/site, and draw its plots
	$(BIN)/python docs/make_plots.py
	$(BIN)/python -m mkdocs build --strict --quiet

format: install ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	test ! -x $(BIN)/biome || $(BIN)/biome check --write

tiny: install ## train the embedded models again from nothing (five hours)
	$(BIN)/python -m training.train
	$(BIN)/python -m training.t5
	$(BIN)/python -m training.itm
	$(BIN)/python -m training.instruct

# Other engines, each with its own interpreter below this folder. No dependency is resolved: what
# vLLM would bring beside (torchvision, torchaudio, torchcodec) is not used.
PEERS ?= build/peers
peers: $(PEERS)/vllm/.installed $(PEERS)/openvino/.installed ## install vLLM and OpenVINO for the races (4 GB)

$(PEERS)/%/.installed: benchmarks/peers-%.txt
	test -x $(PEERS)/$*/bin/python || $(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

RACES ?=
bench: export PEERS := $(abspath $(PEERS))
bench: install ## race against what people run today (about an hour; or RACES="caption-tiny startup")
	$(BIN)/python benchmarks/race.py $(RACES)
