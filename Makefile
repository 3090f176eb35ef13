# Thin calls of the `rbonn` command; bare `make` lists them. Each target first creates .venv.

MODEL ?= fmnist-s
# Empty: the board that the model's file names.
BOARD ?=
# A checkpoint to use in place of the one that ships with MODEL.
CHECKPOINT ?=
# Typical images (.npz, .png or a folder) that give a CHECKPOINT from elsewhere its scales.
CALIBRATION ?=
# Images to classify or simulate (.npz, .png or a folder); empty: those that ship with MODEL.
IMAGES ?=
# What `run` executes: float, integer, golden, rtl or serial:PORT.
BACKEND ?= golden
# Extra options for the command behind a target, e.g. `make train ARGS="--epochs 2"`.
ARGS ?=
# Extra options for pip, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# where PyPI's torch wheel would bring CUDA along.
PIP_ARGS ?=

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT = build/$(MODEL)$(if $(BOARD),/$(BOARD))

with_checkpoint = $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) \
  $(if $(CALIBRATION),--calibration $(CALIBRATION))
with_board = $(if $(BOARD),--board $(BOARD))
with_images = $(if $(IMAGES),--images $(IMAGES))

.DEFAULT_GOAL := help
.PHONY: help setup test test-full lint train compile sim bitstream flash run report bench clean
.DELETE_ON_ERROR:

help:
	@echo "make TARGET [MODEL=$(MODEL)] [BOARD=$(BOARD)] [CHECKPOINT=file] [IMAGES=file] [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON) found; install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot create environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## create .venv and install the pinned tools into it

test: $(STAMP)  ## run the tests, without those that take minutes each
	$(BIN)/python -m pytest -m "not full" $(ARGS)

test-full: $(STAMP)  ## run every test, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

lint: $(STAMP)  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: $(STAMP)  ## train MODEL and write its checkpoint
	$(BIN)/rbonn train --model $(MODEL) $(ARGS)

compile: $(STAMP)  ## compile MODEL to a model image for BOARD
	@mkdir -p $(OUT)
	$(BIN)/rbonn compile --model $(MODEL) $(with_checkpoint) $(with_board) -o $(OUT)/model.img $(ARGS)

sim: $(STAMP)  ## simulate the gateware on MODEL and compare every layer, bit for bit
	$(BIN)/rbonn sim --model $(MODEL) $(with_checkpoint) $(with_images) $(ARGS)

bitstream: $(STAMP)  ## build bitstream, model image and report into build/MODEL/BOARD
	$(BIN)/rbonn bitstream --model $(MODEL) $(with_board) $(with_checkpoint) $(ARGS)

flash: $(STAMP)  ## write what was built for MODEL to the flash of BOARD, with openFPGALoader
	$(BIN)/rbonn flash --model $(MODEL) $(with_board) $(ARGS)

run: $(STAMP)  ## classify IMAGES with BACKEND (golden, rtl, serial:PORT, ...)
	$(BIN)/rbonn run --model $(MODEL) $(with_checkpoint) $(with_board) --backend $(BACKEND) $(with_images) $(ARGS)

report: $(STAMP)  ## write the report of MODEL on BOARD again
	$(BIN)/rbonn report --model $(MODEL) $(with_board) $(with_checkpoint) $(ARGS)

bench: $(STAMP)  ## measure cycles, frames per second and simulation speed
	$(BIN)/rbonn bench --model $(MODEL) $(with_board) $(with_checkpoint) $(ARGS)

clean:  ## remove build products; .venv stays
	rm -rf build sim_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print -exec rm -rf {} + >/dev/null
