# make tag    install on first use, tag examples/recordings, show the first rows
# make test   install on first use, run all tests
# make check  style and types
# make bench  measure, write reports/benchmark.json and the README's figures
# make bench-evaluate  the same of `satpipe evaluate`

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: tag test check bench bench-evaluate clean

tag: .venv/.installed
	$(BIN)/satpipe tag examples/recordings -o out
	@$(BIN)/python -c 'import pandas as pd; print(pd.read_parquet("out/tags").head(12).to_string())'
	@echo "The tables are in $(CURDIR)/out: tags, scores and recordings, as Parquet."

test: .venv/.developing
	$(BIN)/pytest

check: .venv/.developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/satpipe benchmark examples/recordings -o reports/benchmark.json
	$(BIN)/python -m reports.readme

bench-evaluate: .venv/.developing
	$(BIN)/python tests/benchmark_evaluate.py reports/benchmark_evaluate.json
	$(BIN)/python -m reports.readme

clean:
	rm -rf .venv out

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml .venv/bin/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/.developing: pyproject.toml .venv/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@
