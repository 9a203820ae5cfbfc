# Each verb does all the set-up it needs by itself; the second time that takes an instant.
# `make help` lists them.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	command -v $$p >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
# What `make test` hands on to pytest: make test ARGS="-k tracker -x"
ARGS ?=
# All of them run in several processes, each of up to 2.5 GB; those that one chooses, in one.
ALL_TESTS = -n logical --maxprocesses 4 --dist worksteal
IMAGE ?= l2i:cpu
IMAGES ?= cpu
SBOM = build/$(subst :,-,$(IMAGE)).cdx.json

.DEFAULT_GOAL := help
# Tests are rewritten for pytest once, and not by every process; where that is written down, `make clean` finds it.
test test-slow image-test: export PYTHONDONTWRITEBYTECODE =
.PHONY: help setup demo test test-slow check bench docs ui screenshots image-cpu image-cuda image-test sbom licences clean lock

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup:  ## make .venv with everything (L2I_TORCH=cpu|cuda chooses the build of torch)
	@test -n "$(PYTHON)" || { echo "l2i needs Python 3.11 or newer; there is none on PATH." >&2; exit 1; }
	@$(PYTHON) .tools/bootstrap.py

demo: setup  ## train on the built-in sounds, measure, and write explanations to listen to
	@$(BIN)/l2i train --dataset demo

test: setup  ## run the tests but for the slow ones (ARGS="-k word" for some)
	@$(BIN)/python -m pytest -q $(or $(ARGS),$(ALL_TESTS))

test-slow: setup  ## run the slow tests: whole stories, kills, servers
	@$(BIN)/python -m pytest -q -m "slow and not gpu and not docker and not network" $(ALL_TESTS) \
		$$(grep -rl "mark\.slow" tests --include="test_*.py")

check: setup  ## lint, formatting, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup  ## measure speed and memory, as docs/results.md reports them
	@$(BIN)/python -m tests.bench $(ARGS)

docs: setup .venv/docs-stamp  ## make the pages of docs/ in build/docs; a link that leads nowhere is an error
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

.venv/docs-stamp: requirements-docs.lock
	@$(BIN)/pip install -q --no-deps --require-hashes -r requirements-docs.lock && touch $@

ui: setup  ## look at all runs, listen to them, go on to MLflow's pages
	@$(BIN)/l2i ui

screenshots: setup  ## make the docs' pictures of the pages (needs Chromium)
	@$(BIN)/python .tools/screenshots.py

image-cpu:  ## build the image l2i:cpu (docker/build says what can be chosen)
	@docker/build cpu

image-cuda:  ## build the image l2i:cuda, with torch for NVIDIA GPUs (2.7 GB to fetch)
	@docker/build cuda

image-test: setup  ## build and test the image (IMAGES="cpu cuda" for both; ARGS for pytest)
	@IMAGES="$(IMAGES)" $(BIN)/python -m pytest -q -m docker tests/images $(ARGS)

sbom:  ## write build/l2i-cpu.cdx.json: all that the image is made of (IMAGE=l2i:cuda)
	@mkdir -p build
	@docker run --rm -i --entrypoint python $(IMAGE) - < docker/sbom.py > build/sbom.json
	@mv build/sbom.json $(SBOM) && echo $(SBOM)

licences:  ## list packages of the image with their licences (IMAGE=l2i:cuda)
	@docker run --rm -i --entrypoint python $(IMAGE) - licences < docker/sbom.py

clean:  ## remove .venv and what tools left behind (not mlruns/)
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find l2i tests .tools -name __pycache__ -type d -prune -exec rm -rf {} +

lock:  ## resolve the lock files again (UPGRADE=1: take the newest versions)
	@$(PYTHON) .tools/lock.py
