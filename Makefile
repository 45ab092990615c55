# make tag    install on first use, tag examples/recordings, show the first rows
# make test   install on first use, run all tests
# make check  style and types
# make docs   the documentation, in build/docs
# make train-smoke    the whole training chain on the examples, in build/train-smoke: nothing is learned
# make train-bundled  train the model that comes with satpipe, in build/train-bundled; see there
# make train-full     a full-context model of the same data, to compare with; see there
# make extra-audio      sounds of Debian's packages for it, in build/extra
# make bundled-figures  measure that model, write its card; see there
# make bench  measure, write reports/benchmark.json and the README's figures
# make bench-gpu  the same with `satpipe tag` on GPUs, into build/benchmark_gpu.json
# make bench-evaluate  the same of `satpipe evaluate`
# make profile  measure what models and peers cost, write reports/profile.json for the documentation
# make bench-peers  EfficientAT at 10 s, 2 s and 1 s beside the bundled model, on scenes; needs CORPUS and TEACHER
# make bench-stream  the same of `satpipe stream`
# make soak   24 h of sound (HOURS) through `satpipe tag` and one through `satpipe stream`: memory and handles stay flat
# make bench-export  size and speed of exported models
# make consistency  score over time of two long sounds, with memory and without: picture and figures of the README

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: tag test check docs bench bench-gpu bench-evaluate bench-export bench-stream bench-peers profile soak consistency \
  train-smoke train-bundled train-full extra-audio bundled-figures clean

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
	$(BIN)/lint-imports

docs: .venv/.developing
	$(BIN)/sphinx-build -W --keep-going -n -q reports/docs build/docs
	@echo "The documentation is in $(CURDIR)/build/docs/index.html."

bench: .venv/.installed
	$(BIN)/satpipe benchmark examples/recordings -o reports/benchmark.json
	$(BIN)/python -m satpipe.reports.readme

bench-gpu: .venv/.installed
	mkdir -p build
	$(BIN)/satpipe benchmark examples/recordings -o build/benchmark_gpu.json --device cuda
	cat build/benchmark_gpu.json

bench-evaluate: .venv/.developing
	$(BIN)/python tests/support/benchmark_evaluate.py reports/benchmark_evaluate.json
	$(BIN)/python -m satpipe.reports.readme

profile: .venv/.developing
	$(BIN)/satpipe profile -o reports/profile.json

# CORPUS and TEACHER as for train-bundled.
bench-peers: .venv/.developing
	@test -n "$(CORPUS)" && test -n "$(TEACHER)" || { echo "make bench-peers CORPUS=folder TEACHER=weights.pt"; exit 2; }
	$(BIN)/python tests/support/benchmark_peers.py $(CORPUS) $(TEACHER) build/peers reports/peers.json
	$(BIN)/python -m satpipe.reports.readme

bench-stream: .venv/.installed
	$(BIN)/python -m satpipe.jobs.benchmark.stream reports/benchmark_stream.json
	$(BIN)/python -m satpipe.reports.readme

HOURS ?= 24
soak: .venv/.developing
	$(BIN)/python tests/support/soak.py reports/soak.json $(HOURS)

bench-export: .venv/.developing
	$(BIN)/python -m satpipe.jobs.benchmark.export examples/recordings reports/benchmark_export.json
	$(BIN)/python -m satpipe.reports.readme

# Two sounds of the examples, repeated for 10 minutes. FULL: weights of a full-context model, which then reads 10 s and
# 2 s at a time.
CONSISTENCY := build/consistency
consistency: .venv/.installed
	rm -rf $(CONSISTENCY)
	mkdir -p $(CONSISTENCY)/recordings
	for sound in birds_48k_stereo.opus car_engine_22k05_mono.mp3; do \
	  $(BIN)/satpipe synth -o $(CONSISTENCY)/$$sound --foreground examples/sounds.csv --events-per-minute 0 \
	    --background examples/recordings/$$sound --background-db -25 --scenes 1 --length-s 600 && \
	  mv $(CONSISTENCY)/$$sound/audio/scene_00000.wav $(CONSISTENCY)/recordings/$${sound%%_[0-9]*}.wav || exit; \
	done
	$(BIN)/satpipe tag $(CONSISTENCY)/recordings -o $(CONSISTENCY)/memory
	$(BIN)/satpipe tag $(CONSISTENCY)/recordings -o $(CONSISTENCY)/alone --memory off
ifdef FULL
	$(BIN)/satpipe tag $(CONSISTENCY)/recordings -o $(CONSISTENCY)/full_10s --model $(FULL)
	$(BIN)/satpipe tag $(CONSISTENCY)/recordings -o $(CONSISTENCY)/full_2s --model $(FULL) --delay-s 2
endif
	$(BIN)/satpipe report-consistency --labels Bird,Vehicle -o $(CONSISTENCY)/report \
	  $(addprefix $(CONSISTENCY)/,memory alone $(if $(FULL),full_10s full_2s))
	cp $(CONSISTENCY)/report/consistency.json $(CONSISTENCY)/report/consistency.svg reports
	$(BIN)/python -m satpipe.reports.readme

COMMA := ,
SMOKE := build/train-smoke
train-smoke: .venv/.training
	rm -rf $(SMOKE)
	$(BIN)/satpipe prepare examples/recordings --table examples/labels.csv -o $(SMOKE)/clips
	$(BIN)/satpipe train mae smoke_mae -o $(SMOKE)/mae --set data=$(SMOKE)/clips
	$(BIN)/satpipe train full smoke_full -o $(SMOKE)/full --set data=$(SMOKE)/clips \
	  --set validation=$(SMOKE)/clips --set init=$(SMOKE)/mae/model.safetensors
	$(BIN)/satpipe psl $(SMOKE)/clips --teacher $(SMOKE)/full/model.safetensors -o $(SMOKE)/labels
	$(BIN)/satpipe train sat smoke_sat -o $(SMOKE)/sat --set data=$(SMOKE)/clips --set labels=$(SMOKE)/labels \
	  --set validation=$(SMOKE)/clips --set init=$(SMOKE)/full/model.safetensors
	$(BIN)/satpipe tag examples/recordings --model $(SMOKE)/sat/model.safetensors -o $(SMOKE)/tags

# The same command continues a run that was stopped. CORPUS has audio/, manifest.tsv (path, split) and
# teacher_scores.parquet; EXTRA, if given, audio/ and manifest.tsv, and is labelled here; TEACHER: EfficientAT's weights;
# INIT: weights to start from instead of random ones, as sat/data/bundled.safetensors to train those further; SETTINGS: other
# options of `satpipe train`. The configuration is for a GPU.
BUNDLED := build/train-bundled
train-bundled: .venv/.training
	@test -n "$(CORPUS)" && test -n "$(TEACHER)" || \
	  { echo "make train-bundled CORPUS=folder TEACHER=weights.pt [EXTRA=folder] [INIT=weights.safetensors] [SETTINGS=...]"; exit 2; }
	for part in train validation; do \
	  $(BIN)/satpipe prepare $(CORPUS)/audio --table $(CORPUS)/manifest.tsv --where split=$$part -o $(BUNDLED)/$$part && \
	  $(BIN)/satpipe psl $(BUNDLED)/$$part --teacher $(CORPUS)/teacher_scores.parquet --where kind=window \
	    -o $(BUNDLED)/$$part-labels || exit; done
ifdef EXTRA
	$(BIN)/satpipe prepare $(EXTRA)/audio --table $(EXTRA)/manifest.tsv --where split=train -o $(BUNDLED)/extra || test $$? = 3
	$(BIN)/satpipe psl $(BUNDLED)/extra --teacher $(TEACHER) -o $(BUNDLED)/extra-labels
endif
	$(BIN)/satpipe train sat bundled -o $(BUNDLED)/run $$(test -e $(BUNDLED)/run/run.json && echo --resume) \
	  --set data=$(BUNDLED)/train$(if $(EXTRA),$(COMMA)$(BUNDLED)/extra) \
	  --set labels=$(BUNDLED)/train-labels$(if $(EXTRA),$(COMMA)$(BUNDLED)/extra-labels) --set teacher=$(TEACHER) \
	  $(if $(INIT),--set init=$(INIT)) \
	  --set validation=$(BUNDLED)/validation --set validation_labels=$(BUNDLED)/validation-labels $(SETTINGS)

# A full-context model that goes with it, to compare with (`make consistency FULL=...`), in build/train-bundled/full.
train-full: .venv/.training
	@test -n "$(CORPUS)" || { echo "make train-full CORPUS=folder, after train-bundled"; exit 2; }
	$(BIN)/satpipe psl $(BUNDLED)/train --teacher $(CORPUS)/teacher_scores.parquet --where kind=clip \
	  -o $(BUNDLED)/train-clip-labels
	$(BIN)/satpipe train full bundled_full -o $(BUNDLED)/full $$(test -e $(BUNDLED)/full/run.json && echo --resume) \
	  --set data=$(BUNDLED)/train --set labels=$(BUNDLED)/train-clip-labels --set init=sat/data/bundled.safetensors \
	  --set validation=$(BUNDLED)/validation --set validation_labels=$(BUNDLED)/validation-labels

# EXTRA of train-bundled; needs apt-get, as Debian 12 has it.
extra-audio: .venv/.installed
	$(BIN)/python -m satpipe.jobs.train.extra_audio build/extra

# After train-bundled. BEFORE, if given: weights that the card shows beside the bundled ones.
bundled-figures: .venv/.training
	@test -n "$(CORPUS)" && test -n "$(TEACHER)" && test -n "$(EXTRA)" || \
	  { echo "make bundled-figures CORPUS=folder TEACHER=weights.pt EXTRA=folder [BEFORE=weights.safetensors]"; exit 2; }
	$(BIN)/satpipe prepare $(EXTRA)/audio --table $(EXTRA)/manifest.tsv --where split=held-out -o $(BUNDLED)/held-out
	$(BIN)/python -m satpipe.reports.model_card $(BUNDLED) --manifest $(CORPUS)/manifest.tsv --teacher $(TEACHER) --run $(BUNDLED)/run \
	  --model bundled bundled --model bundled_1s bundled_1s $(if $(BEFORE),--model before $(BEFORE))

clean:
	rm -rf .venv out build

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
