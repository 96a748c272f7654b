# `make setup` makes .venv with what a user needs; what tests and linters need comes with the first target that does.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.setup
DEV := .venv/.dev
SITE := .venv/.site
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
# Two test processes of one thread each use two cores better than one process of two.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup train six test lint check docs site build bench prove evidence base clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(SETUP)  ## make .venv with the tested versions of constraints.txt

$(SETUP): pyproject.toml constraints.txt
	@echo "setting up .venv: about 1 GB, two to three minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[prm]'
	@touch $(SETUP)

$(DEV): $(SETUP)
	@echo "adding what tests and linters need"
	@$(PIP) -e '.[dev]'
	@touch $(DEV)

train: $(SETUP)  ## train on the embedded world; ARGS="+experiment=instance_table seed=1" for another run
	$(BIN)/python -m src.train $(or $(ARGS),+experiment=trust)

six: $(SETUP)  ## sample, label, train, score, select, evaluate by six commands; LIMIT=48 for a small run
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/six_commands.sh $(ARGS)

test: $(DEV)  ## run the tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

$(SITE): $(DEV)
	@echo "adding what the site needs"
	@$(PIP) -e '.[site]'
	@touch $(SITE)

site: $(SITE)  ## build the pages into dist/site, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

lint: $(DEV)  ## ruff, spelling, pyright, import contracts: a minute
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/pyright && $(BIN)/lint-imports

check: lint  ## lint, and the tests that need no model
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/test_house.py tests/docs tests/conf/test_command_line.py

docs: site  ## build the site, and run every code block of README and docs
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m docs tests/docs tests/examples/test_six_commands.py $(ARGS)

build: $(DEV)  ## build the wheel and run it in fresh environments, from an empty folder
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --wheel-dir dist .
	$(BIN)/python -m pytest -m packaging tests/packaging $(ARGS)

bench: $(DEV)  ## microbenchmarks of the hypergradients; writes benchmarks/reports/
	$(BIN)/python -m benchmarks.engine $(ARGS)

prove: $(DEV)  ## the slow proofs: five seeds on the world; writes benchmarks/reports/
	$(BIN)/python -m benchmarks.evidence.prove $(ARGS)

evidence: $(DEV)  ## learned weights against rivals, by kind of trouble and seed; writes benchmarks/reports/
	$(BIN)/python -m benchmarks.evidence $(ARGS)

base: $(SETUP)  ## rebuild the tiny InternVL of the embedded world
	$(BIN)/python -m dreamprm.world.build_base $(ARGS)

clean:  ## remove what the targets made
	rm -rf .venv .cache runs outputs multirun dist
