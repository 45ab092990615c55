"""The recipe of the bundled model, and how the model is measured, on a corpus of a few clips."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import Satpipe
from helpers import model_by_rule, sound
from satpipe.jobs.benchmark import bundled as measuring
from satpipe.jobs.options.measure import BundledFiguresOptions
from satpipe.jobs.options.train import BundledOptions
from satpipe.jobs.train import bundled, formula_audio
from satpipe.jobs.train.bundled import Corpus, train_bundled
from satpipe.jobs.train.config import TrainConfig
from satpipe.pipeline.training_data.shards import Shards
from satpipe.reports.model_card import FIGURES, curve_table, table
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import get_config
from satpipe.sat.training.formula import FAMILIES
from satpipe.sat.weights.hub import BUNDLED_PATH
from satpipe.sat.weights.published import save


def write_corpus(folder: Path, clips: dict[str, str]) -> Path:
    """A corpus of clips, each with its split; those of a split are one recording."""
    (folder / "audio").mkdir(parents=True)
    for number, name in enumerate(clips):
        soundfile.write(folder / "audio" / name, sound(4 * 16_000, number).numpy().clip(-1, 1), 16_000)
    rows = [(name, split, "a", split, 4.0 * number) for number, (name, split) in enumerate(clips.items())]
    table = pd.DataFrame(rows, columns=["path", "split", "source", "origin", "start_s"])
    table.to_csv(folder / "manifest.tsv", sep="\t", index=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled")
    clips = {"dog_1.flac": "train", "cat_1.flac": "train", "dog_2.flac": "validation", "rain_2.flac": "validation"}
    write_corpus(folder / "corpus", clips)
    scores = [
        {"path": name, "start_s": 0.0, "end_s": 4.0, "index": [index], "score": [0.9], "kind": kind}
        for name in clips
        for kind, index in (("window", 74), ("clip", 0))
    ]
    pd.DataFrame(scores).to_parquet(folder / "corpus" / "teacher_scores.parquet")
    write_corpus(folder / "extra", {"bell_1.flac": "train", "bell_2.flac": "held-out"})
    formula_audio.make(folder / "formula", 2, seed=3)
    save(model_by_rule(get_config("audiotransformer_tiny")), folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path, ray_here: None) -> list[tuple[TrainConfig, Path, bool]]:
    """Settings, folder and `resume` of the runs that the recipe starts."""
    found: list[tuple[TrainConfig, Path, bool]] = []

    def train(settings: TrainConfig, run: Path, *, resume: bool, report: Any) -> Path:
        found.append((settings, run, resume))
        run.mkdir(exist_ok=True)
        (run / "run.json").touch()
        return run / "model.safetensors"

    options = {
        "teacher": str(folder / "teacher.safetensors"),
        "out": folder / "out",
        "extra": (str(folder / "extra"), str(folder / "formula")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "train", train)
        sequences = {"recipe": "sat_tiny_sequences", "init": "bundled"}
        for more in ({"init": "start.safetensors"}, {"overrides": ("lr=1e-4",)}, {"full_context": True}, sequences):
            train_bundled(Corpus(folder / "corpus"), BundledOptions(**options, **more), lambda line: None)
    return found


@pytest.mark.slow
def test_the_data_are_prepared_and_labelled_once(folder: Path, runs: list[tuple[TrainConfig, Path, bool]]) -> None:
    (first, run, resume), (second, same, again), *_ = runs
    out = folder / "out"
    assert (run, resume, same, again) == (out / "run", False, out / "run", True)
    assert (first.stage, first.arch, first.teacher) == ("sat", "SAT_T_2s", str(folder / "teacher.safetensors"))
    assert first.data == f"{out / 'train'},{out / 'extra'},{out / 'extra-2'}"
    assert first.labels == f"{out / 'train-labels'},{out / 'extra-labels'},{out / 'extra-2-labels'}"
    assert (first.validation, first.validation_labels) == (str(out / "validation"), str(out / "validation-labels"))
    assert (first.init, second.init, second.lr) == ("start.safetensors", "", 1e-4)
    (third, run, _) = runs[3]
    assert (third.sequence_chunks, third.init, run) == (5, "bundled", out / "sat_tiny_sequences")
    clips = {part: sorted(Shards(out / part).clips) for part in ("validation", "extra", "extra-2")}
    assert clips == {
        "validation": ["dog_2.flac", "rain_2.flac"],
        "extra": ["bell_1.flac"],
        "extra-2": ["waves_00001.flac", "wind_00000.flac"],
    }


@pytest.mark.slow
def test_the_full_context_model_starts_from_the_bundled_one(
    folder: Path, runs: list[tuple[TrainConfig, Path, bool]]
) -> None:
    settings, run, resume = runs[2]
    assert (settings.stage, settings.init, run, resume) == ("full", str(BUNDLED_PATH), folder / "out" / "full", False)
    labels = pd.read_parquet(next(Path(settings.labels).glob("*.parquet")))
    assert [index.tolist() for index in labels["index"]] == [[0], [0]]


@pytest.mark.slow
def test_the_models_are_measured_as_the_card_shows(folder: Path, runs: list[tuple[TrainConfig, Path, bool]]) -> None:
    line = {"seen": 5, "teacher_map_10": 0.5, "teacher_map_3": 0.5, "top_1": 1.0, "epoch": 1, "update": 1}
    line |= {"teacher_map_10_memory_off": 0.4, "teacher_map_3_memory_off": 0.4}
    lines = [{"hours": 0.25, "epoch": 1, "update": 1}, line]
    (folder / "out" / "run" / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    options = BundledFiguresOptions(
        teacher=str(folder / "teacher.safetensors"), extra=folder / "extra", training=folder / "out"
    )
    said: list[str] = []
    found = measuring.benchmark(Corpus(folder / "corpus"), options, {"models": {"old": {}}}, said.append)
    known = json.loads(FIGURES.read_text())
    assert said == ["bundled", "bundled_1s", "the teacher"]
    assert found.keys() == known.keys()
    assert found["models"].pop("old") == {}
    for model in found["models"].values():
        parts = {part: values.keys() for part, values in model.items()}
        assert parts == {"joined": parts["joined"]} | {
            part: values.keys() for part, values in known["models"]["bundled"].items()
        }
        assert (model["long"]["recordings"], model["long"]["pieces"]) == (1, 2)
        assert (model["joined"]["recordings"], model["joined"]["hours"]) == (1, 0.002)
        assert (model["validation"]["clips"], model["held_out"]["clips"]) == (2, 1)
        assert 0 <= model["pieces"]["top_1"] <= 1
    assert found["curve"] == [
        {"samples": 5, "hours": 0.25} | {key: line[key] for key in known["curve"][0] if key in line}
    ]
    assert "| 5 | 0.25 | 0.500 | 0.400 | 0.500 | 0.400 | 1.000 |" in curve_table(found["curve"])
    assert table(found).startswith("| figure | bundled | bundled_1s | teacher |")
    assert "| teacher-mAP, all clips as one recording of 0.0 h, " in table(found)
    assert "| calibration error, all clips as one recording, memory on |" in table(found)


@pytest.mark.slow
def test_what_a_corpus_does_not_have_is_named(folder: Path, tmp_path: Path, ray_here: None) -> None:
    with pytest.raises(ConfigError, match="--teacher must name EfficientAT's weights"):
        train_bundled(Corpus(folder / "corpus"), BundledOptions(), lambda line: None)
    with pytest.raises(ConfigError, match=r"teacher_scores.parquet not found"):
        assert Corpus(folder / "extra").scores
    corpus = write_corpus(tmp_path / "corpus", {"a.flac": "train"})
    (corpus / "teacher_scores.parquet").touch()
    (corpus / "audio" / "a.flac").write_bytes(b"no audio")
    with pytest.raises(ConfigError, match=r"missing or not readable: 1 clip of .*, such as a.flac"):
        train_bundled(Corpus(corpus), BundledOptions(teacher="none.pt", out=tmp_path / "out"), lambda line: None)


def test_sounds_by_formula_depend_on_the_seed_alone(satpipe_here: Satpipe, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        done = satpipe_here("formula-audio", tmp_path / name, "--clips", len(FAMILIES), "--seed", seed)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / name / 'manifest.tsv'} lists the clips\n")
    rows = list(Corpus(tmp_path / "one").rows("train"))
    assert [row["family"] for row in rows] == list(FAMILIES)
    for row in rows:
        clips = {name: soundfile.read(tmp_path / name / "audio" / row["path"])[0] for name in ("one", "same", "other")}
        assert len(clips["one"]) == 10 * 16000
        assert 0.04 < np.abs(clips["one"]).max() < 0.71  # -24 to 0 dB of the peak
        assert np.array_equal(clips["one"], clips["same"])
        assert not np.array_equal(clips["one"], clips["other"])


def test_an_unknown_package_is_one_clear_line(satpipe_here: Satpipe, tmp_path: Path) -> None:
    done = satpipe_here("extra-audio", tmp_path, "--package", "no-such-data")
    assert (done.returncode, done.stderr) == (
        1, "ConfigError: extra_audio.tsv.gz contains no package no-such-data\n"
    )  # fmt: skip


def test_the_calibration_of_scores_that_say_how_often_is_perfect() -> None:
    scores = np.full((8, 527), 0.25, np.float32)
    truth = np.zeros((8, 527), bool)
    truth[:2, 5] = True  # too rare to count
    assert np.isnan(measuring.calibration_error(scores, truth))
    truth[:4, 7] = True
    assert measuring.calibration_error(scores, truth) == pytest.approx(0.25)  # of one class: 0.25, but half are true
    scores[:, 7] = 0.5
    assert measuring.calibration_error(scores, truth) == pytest.approx(0)


def test_chunks_of_a_recording_are_scored_with_memory_and_without() -> None:
    model = model_by_rule(get_config("SAT_T_2s"))
    samples = sound(3 * model.config.chunk_samples)
    on, off = (
        measuring.chunk_scores(model, measuring.LogMel(), samples, memory_on=memory_on).detach().numpy()
        for memory_on in (True, False)
    )
    assert on.shape == off.shape == (3, 527)
    assert np.array_equal(on[0], off[0])
    assert np.abs(on[1:] - off[1:]).max() > 0.01
