# make run   sets up and simulates a real molecule with a bundled potential
# make test  sets up and passes the tests
# Both create .venv; PYTHON chooses the interpreter (3.10 or newer).

PYTHON ?= python3
BIN := .venv/bin

# TorchForce's binary package exists for Linux; elsewhere the potentials run through PythonForce.
ifeq ($(shell uname -sm),Linux x86_64)
RUN_EXTRAS := torch-force
else
RUN_EXTRAS := train
endif

.PHONY: run test slow lint clean

run: .venv/ready-to-run
	$(BIN)/openmm-nequip simulate simulations/ethanol_vacuum/simulate.yaml \
		output=runs/ethanol_vacuum-$$(date +%Y%m%d-%H%M%S)

test: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

slow: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/ready-to-run: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[$(RUN_EXTRAS)]"
	touch $@

.venv/ready-to-test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[$(RUN_EXTRAS),train,mlmm,interop,dev]"
	touch $@ .venv/ready-to-run
