# `make demo` and `make test` need git, make and Python >= 3.10, and make their own environment in .venv.
PYTHON ?= python3
BIN    := .venv/bin
EXTRAS ?= dev

.PHONY: demo test check bench clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: .venv/installed          ## train a small model in two processes and log everything
	$(BIN)/tbxd demo

test: check                    ## style, types, and every test
	$(BIN)/python -m pytest

check: .venv/installed         ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed         ## tbxd beside tensorboardX and torch, in one run
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info
