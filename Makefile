# make setup makes .venv; every other target calls it first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Two test processes of one thread each use two cores better than one process of two.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup train test lint bench prove base clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP)  ## make .venv with the tested versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

train: setup  ## train on the embedded world; ARGS="+experiment=instance_table seed=1" for another run
	$(BIN)/python -m src.train $(or $(ARGS),+experiment=instance_net)

test: setup  ## run the tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

lint: setup  ## ruff, pyright, import rules
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/lint-imports

bench: setup  ## microbenchmarks of the hypergradients; writes benchmarks/reports/
	$(BIN)/python -m benchmarks.run $(ARGS)

prove: setup  ## the slow proofs: five seeds on the world; writes benchmarks/reports/
	$(BIN)/python -m benchmarks.prove $(ARGS)

base: setup  ## rebuild the tiny InternVL of the embedded world
	$(BIN)/python -m dreamprm.world.build_base $(ARGS)

clean:  ## remove what the targets made
	rm -rf .venv .cache runs outputs multirun
