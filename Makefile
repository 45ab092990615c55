# make tag          install on first use, tag examples/recordings, show the first rows
# make test         install on first use, run all tests
# make check        style, types, direction of imports
# make docs         the documentation, in build/docs
# make bench        measure the speed of tagging, and write it into README and documentation
# make bench-gpu    the same for tagging on a GPU; the figures go to build/benchmark_gpu.json
# make train-smoke  `satpipe reproduce` on the examples, in build/train-smoke; the models learn nothing
# make clean        remove what these targets created

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: tag test check docs bench bench-gpu train-smoke clean

tag: .venv/.installed
	$(BIN)/satpipe tag examples/recordings -o out
	@$(BIN)/python -c 'import pandas as pd; print(pd.read_parquet("out/tags").iloc[:12, :7].to_string())'
	@echo "The tables are in $(CURDIR)/out: tags, scores and recordings, as Parquet."

test: .venv/.developing
	$(BIN)/pytest

check: .venv/.developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.developing
	$(BIN)/sphinx-build -W --keep-going -n -q reports/docs build/docs
	@echo "The documentation is in $(CURDIR)/build/docs/index.html."

bench: .venv/.installed
	$(BIN)/satpipe benchmark tag examples/recordings -o reports/benchmark.json
	$(BIN)/python -m satpipe.reports.readme

bench-gpu: .venv/.installed
	$(BIN)/satpipe benchmark tag examples/recordings -o build/benchmark_gpu.json --device cuda

SMOKE := build/train-smoke
train-smoke: .venv/.training
	rm -rf $(SMOKE)
	$(BIN)/satpipe synth --foreground examples/sounds.csv --scenes 6 -o $(SMOKE)/audioset/eval
	cp $(SMOKE)/audioset/eval/weak.csv $(SMOKE)/audioset/eval_segments.csv
	cp $(SMOKE)/audioset/eval/strong.tsv $(SMOKE)/audioset/audioset_eval_strong.tsv
	cp examples/audioset/balanced_train_segments.csv $(SMOKE)/audioset
	cp -R examples/recordings $(SMOKE)/audioset/train
	$(BIN)/satpipe reproduce table2 table3 --audioset $(SMOKE)/audioset --sizes tiny --delays 2 \
	  --recipes examples/audioset/recipes -o $(SMOKE)/reproduced

clean:
	rm -rf .venv .dev out build

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml .venv/bin/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/.training: pyproject.toml .venv/.installed
	$(BIN)/pip install --quiet --editable '.[train]'
	@touch $@

.venv/.developing: pyproject.toml .venv/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@
