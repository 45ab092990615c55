"""Own classes: learned from examples, scored from embeddings, and used by the commands that read scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import satpipe as api
import soundfile
from conftest import Satpipe
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.jobs import report_data
from satpipe.jobs.options.own_classes import LearnOptions
from satpipe.jobs.options.results import ReportOptions
from satpipe.jobs.own_classes import learn, write
from satpipe.jobs.own_classes.figures import figures
from satpipe.jobs.own_classes.fit import Examples, Fitted, fit, folds
from satpipe.jobs.own_classes.labels import origin_of
from satpipe.sat.errors import CheckpointError, ConfigError, DamageError, LabelError, OutputError, SatpipeError
from satpipe.sat.own_classes import OwnClasses, normalised, read_own_classes, to_bytes
from sklearn.metrics import average_precision_score, f1_score

RATE_HZ = 16_000
LENGTH_S = 4


def clip(kind: str, seed: int) -> np.ndarray:
    """Return a sound of a kind: `siren`, a tone that glides; `hiss`, noise; `hum`, a low chord."""
    rng = np.random.default_rng(seed)
    t = np.arange(LENGTH_S * RATE_HZ) / RATE_HZ
    if kind == "siren":
        return 0.3 * np.sin(2 * np.pi * (900 * t + (80 + 20 * seed) * np.sin(2 * np.pi * 2 * t)))
    if kind == "hiss":
        return (0.05 + 0.03 * seed) * rng.standard_normal(len(t))
    return sum(0.15 * np.sin(2 * np.pi * hz * t + seed) for hz in (50, 100 + seed, 150))


def make(folder: Path, **kinds: int) -> Path:
    """Write a folder of classes with so many clips each."""
    for kind, count in kinds.items():
        (folder / kind).mkdir(parents=True)
        for seed in range(count):
            name = {"background": "hum"}.get(kind, kind)
            soundfile.write(folder / kind / f"{kind}{seed}.wav", clip(name, seed), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("labelled") / "sounds", siren=3, hiss=3, background=3)


@pytest.fixture(scope="module")
def classes(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("classes") / "mine.safetensors"
    write(learn(labelled), file)
    return file


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a hum, a siren, a hum and a hiss, of four seconds each."""
    folder = tmp_path_factory.mktemp("night") / "recordings"
    folder.mkdir()
    parts = [clip(kind, 5) for kind in ("hum", "siren", "hum", "hiss")]
    soundfile.write(folder / "night.wav", np.concatenate(parts), RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def tagged(satpipe_here: Satpipe, night: Path, classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tagged") / "out"
    done = satpipe_here("tag", night, "-o", out, "--own-classes", classes)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def copy(tagged: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tagged, tmp_path / "out"))


def test_learn_prints_figures_of_each_class_and_writes_the_same_file_again(
    satpipe_here: Satpipe, labelled: Path, classes: Path, tmp_path: Path
) -> None:
    done = satpipe_here("learn", labelled, "-o", tmp_path / "again.safetensors")
    assert done.returncode == 0, done.stderr
    assert "| hiss | 3 | 3 | 1.00 (1.00 to 1.00) |" in done.stdout
    assert (tmp_path / "again.safetensors").read_bytes() == classes.read_bytes()
    for name in ("mine", "my classes.safetensors"):
        refused = satpipe_here("learn", labelled, "-o", tmp_path / name)
        assert refused.returncode == 1
        assert "ConfigError: the name of" in refused.stderr
    learned = read_own_classes(classes)
    assert learned.labels == ("hiss", "siren")
    assert learned.card["background"] == 3
    assert [each["average_precision"] for each in learned.card["classes"]] == [1.0, 1.0]


def test_a_table_has_every_own_class_of_every_chunk_and_finds_what_was_taught(tagged: Path, classes: Path) -> None:
    table = pd.read_parquet(tagged / "own" / "mine")
    assert list(table.columns) == list(pd.read_parquet(tagged / "tags").columns)
    chunks = len(pd.read_parquet(tagged / "scores"))
    assert table.groupby("chunk").mid.agg(list).tolist() == [["own/hiss", "own/siren"]] * chunks
    embeddings = np.stack(pd.read_parquet(tagged / "embeddings").embedding.to_numpy())
    scores = table.score.to_numpy().reshape(chunks, 2)
    np.testing.assert_allclose(scores, read_own_classes(classes).scores(embeddings), atol=1e-6)
    best = table[table.score > 0.5].groupby("label", observed=True)[["start_s", "end_s"]].agg(["min", "max"])
    siren, hiss = best.loc["siren"], best.loc["hiss"]
    assert 3.5 < siren["start_s"]["min"] < siren["end_s"]["max"] < 10
    assert 11 < hiss["start_s"]["min"] < hiss["end_s"]["max"] <= 16


def test_readers_and_events_take_own_classes_beside_those_of_audioset(tagged: Path, satpipe_here: Satpipe) -> None:
    tags = api.read_tags(tagged, own="mine/siren", min_score=0.5)
    assert tags.mid.unique().tolist() == ["own/siren"]
    table = pd.read_parquet(tagged / "own" / "mine")
    siren = table[table.label == "siren"].score
    assert tags.score.tolist() == siren[siren >= 0.5].tolist()
    scores = api.read_scores(tagged, own="mine", labels="Siren")
    assert scores["siren"].tolist() == siren.astype(np.float16).tolist()
    assert scores["Siren"].tolist() == api.read_scores(tagged, labels="Siren")["Siren"].tolist()
    events = api.events(tagged, own="mine")
    assert set(events.mid) == {"own/siren", "own/hiss"}
    threshold = dict(
        zip(("hiss", "siren"), read_own_classes(tagged / "own" / "mine.safetensors").thresholds, strict=True)
    )
    assert all(event.peak_score >= threshold[event.label] for event in events.itertuples())
    assert len(api.events(tagged, own="mine", threshold=1.0)) == 0
    done = satpipe_here("events", tagged, "--own", "mine", "-o", tagged / "own.csv")
    assert done.returncode == 0, done.stderr
    file = tagged / "thresholds.json"
    file.write_text('{"default": 0.5, "thresholds": {"own/siren": 0.4, "own/hiss": 0.4}}')
    done = satpipe_here("events", tagged, "--threshold", file, "-o", tagged / "own.csv")
    note = f"note: not used, without --own: the thresholds in {file} of 2 own classes: own/siren, own/hiss\n"
    assert done.stdout.count(note) == 1
    done = satpipe_here("events", tagged, "--threshold", file, "--own", "mine", "-o", tagged / "own.csv")
    assert (done.returncode, "not used" in done.stdout) == (0, False)
    with pytest.raises(OutputError, match="no table own/yours: it has mine"):
        api.events(tagged, own="yours")
    with pytest.raises(LabelError, match="mine has no class 'owl'"):
        api.read_scores(tagged, own="mine/owl")


def test_evaluate_compares_own_classes_with_labels_of_these_names(tagged: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.tsv"
    rows = ("recording\tonset\toffset\tlabel", "night.wav\t4\t8\tsiren", "night.wav\t12\t16\thiss")
    truth.write_text("\n".join(rows) + "\n")
    result = api.evaluate(tagged, strong=truth, own="mine", bootstrap=0)
    assert {each["label"] for each in result["classes"]} == {"siren", "hiss"}
    assert all(each["segment_f1"] > 0.7 for each in result["classes"])
    activity = api.activity(tagged, own="mine", by="recording")
    assert set(activity.label) == {"siren", "hiss"}
    shown = report_data.collect(tagged, ReportOptions(own="mine", labels="Siren", audio=False))
    assert {label.name for label in shown.labels} >= {"siren", "hiss"}
    assert all(label.duration_s[-1] <= 16 for label in shown.labels)


def test_stream_prints_own_classes_that_reach_their_threshold(
    night: Path, classes: Path, satpipe_here: Satpipe
) -> None:
    done = satpipe_here("stream", night / "night.wav", "--own-classes", classes)
    assert done.returncode == 0, done.stderr
    lines = [line for line in map(json.loads, done.stdout.splitlines()) if "tags" in line]
    found = {line["chunk"]: [each["mid"] for each in line["own"]] for line in lines}
    assert found[0] == []
    assert found[3] == ["own/siren"]
    assert found[7] == ["own/hiss"]


def test_classify_replaces_a_table_and_scores_of_other_classes_are_never_read_together(
    copy: Path, classes: Path, satpipe_here: Satpipe, tmp_path: Path
) -> None:
    assert "0 chunks scored" in satpipe_here("classify", copy, "--own-classes", classes).stdout
    other = tmp_path / "mine.safetensors"
    learned = read_own_classes(classes)
    other.write_bytes(to_bytes(replace(learned, labels=("hiss", "whistle"))))
    shutil.copy(other, copy / "own")  # as a `classify` leaves it that was stopped before its first file
    with pytest.raises(DamageError, match="earlier version of these classes"):
        api.read_scores(copy, own="mine")
    assert "earlier version" in satpipe_here("status", "--check", copy).stdout
    done = satpipe_here("classify", copy, "--own-classes", other)
    assert done.returncode == 0, done.stderr
    assert list(api.read_scores(copy, own="mine").columns[-2:]) == ["hiss", "whistle"]
    assert "undamaged" in satpipe_here("status", "--check", copy).stdout


def test_recordings_that_are_tagged_later_get_scores_of_own_classes(
    copy: Path, night: Path, satpipe_here: Satpipe, tmp_path: Path
) -> None:
    more = Path(shutil.copytree(night, tmp_path / "recordings"))
    shutil.copy2(night / "night.wav", more / "morning.wav")
    done = satpipe_here("tag", more, "-o", copy)
    assert done.returncode == 0, done.stderr
    scores = api.read_scores(copy, own="mine").groupby("recording", observed=True)["siren"].agg(list)
    assert scores["morning.wav"] == pytest.approx(scores["night.wav"], abs=1e-5)


def test_classes_of_another_model_and_folders_without_embeddings_are_refused(
    copy: Path, night: Path, classes: Path, satpipe_here: Satpipe, tmp_path: Path
) -> None:
    learned = read_own_classes(classes)
    other = tmp_path / "other.safetensors"
    other.write_bytes(to_bytes(replace(learned, model_sha256="0" * 64, model="SAT_B_2s")))
    for command in (("classify", copy), ("tag", night, "-o", tmp_path / "new")):
        done = satpipe_here(*command, "--own-classes", other)
        assert done.returncode == 1
        assert "learned with the model SAT_B_2s" in done.stderr
        assert "SAT_T_2s" in done.stderr
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="learned with the model SAT_T_2s .* tagged with SAT_T_1s"):
        learned.check_model(learned.model_sha256, "SAT_T_1s", classes)
    for file in (copy / "recordings").iterdir():
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is not a file of own classes"):
        read_own_classes(next((copy / "recordings").iterdir()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_own_classes(tmp_path / "missing.safetensors")


def test_labelled_stretches_teach_from_audio_and_from_embeddings(tagged: Path, night: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", soundfile.read(night / "night.wav")[0], RATE_HZ)
    sheet = tmp_path / "sheet.csv"
    rows = ["recording,start_s,end_s,label,correct"]
    for name in ("a", "b"):
        rows += [f"{name}.wav,4,8,alarm,yes", f"{name}.wav,0,3,alarm,no", f"{name}.wav,12,16,alarm,no"]
        rows += [f"{name}.wav,8,11,alarm,unsure"]
    sheet.write_text("\n".join(rows) + "\n")
    learned = learn(sheet)
    assert learned.classes.labels == ("alarm",)
    assert [(each.examples, each.recordings, each.average_precision) for each in learned.figures] == [(2, 2, 1.0)]
    truth = tmp_path / "truth.tsv"
    truth.write_text("recording\tonset\toffset\tlabel\nnight.wav\t4\t8\talarm\nnight.wav\t12\t16\thiss\n")
    with pytest.raises(SatpipeError, match="fewer than two recordings of alarm, hiss"):
        learn(truth, embeddings_from=str(tagged))


def test_labels_that_cannot_be_learned_are_refused(tmp_path: Path) -> None:
    def refused(labels: Path, message: str, **options: str) -> None:
        with pytest.raises(SatpipeError, match=message):
            learn(labels, **options)

    refused(make(tmp_path / "one", siren=2), "examples of siren only")
    refused(make(tmp_path / "few", siren=1, hiss=2), "fewer than two recordings of siren")
    case = make(tmp_path / "case", siren=2, hiss=2)
    shutil.copytree(case / "siren", case / "Siren")
    refused(case, "differ in case or spaces only: Siren and siren")
    empty = make(tmp_path / "empty", siren=2, hiss=2)
    (empty / "owl").mkdir()
    (empty / "owl" / "owl.mid").touch()
    refused(empty, "classes without recordings: owl .it has .mid files")
    silent = make(tmp_path / "silent", siren=2, hiss=2)
    for file in (silent / "hiss").iterdir():
        soundfile.write(file, np.zeros(RATE_HZ), RATE_HZ)
    refused(silent, "fewer than two recordings of hiss")
    refused(tmp_path / "nothing", "does not exist")
    (tmp_path / "bare").mkdir()
    refused(tmp_path / "bare", "neither a folder with a sub-folder")
    soundfile.write(tmp_path / "x.wav", clip("hum", 0), RATE_HZ)
    soundfile.write(tmp_path / "y.wav", clip("hum", 1), RATE_HZ)
    outside = tmp_path / "outside.csv"
    head = "recording,start_s,end_s,label\nx.wav,0,1,a\ny.wav,1,2,a\nx.wav,2,3,b\n"
    outside.write_text(head + "y.wav,3,9,b\n")
    refused(outside, "y.wav from 3 s to 9 s: it is 4 s long")
    outside.write_text(head + "z.wav,3,9,b\n")
    refused(outside, "has no recording z.wav")
    with pytest.raises(ConfigError, match="leave out --recordings"):
        LearnOptions(recordings="x", embeddings_from="out")


def test_a_label_of_audioset_is_allowed_and_noted(tmp_path: Path) -> None:
    learned = learn(make(tmp_path / "sounds", siren=2, background=2))
    assert learned.notes == (
        "'siren' is also a class of AudioSet: your own class begins with what the model knows of it, and has the mid "
        "own/siren",
    )


def test_clips_of_one_recording_count_as_one() -> None:
    assert origin_of("owl/site_12.50_14.25.wav") == origin_of("owl/site_3.0_5.0.flac") == "site"
    assert origin_of("AM1_20240501_060000.WAV") == "AM1_20240501_060000"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), min_size=2, max_size=40), st.integers(0, 3))
def test_no_recording_is_on_both_sides_and_classes_are_spread(rows: list[tuple[int, int]], seed: int) -> None:
    group, label = np.array(rows, np.int32).T
    present = label[:, None] == np.arange(3)
    part = folds(Examples(("a", "b", "c"), np.zeros((len(rows), 1)), present, present | True, group), seed)
    assert all(len(np.unique(part[group == each])) == 1 for each in group)
    assert len(np.unique(part)) == min(5, len(np.unique(group)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30))
def test_figures_of_a_class_equal_those_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    score, label = np.array([each for each, _ in rows]) / 7, np.array([each for _, each in rows])
    label[0] = True
    shape = (len(rows), 1)
    present, group = label.reshape(shape), np.arange(len(rows), dtype=np.int32)
    examples = Examples(("a",), np.zeros(shape, np.float32), present, np.ones(shape, bool), group)
    (found,) = figures(examples, Fitted(np.zeros((1, 1)), np.zeros(1), 1.0, score.reshape(shape)), 0)
    assert found.average_precision == pytest.approx(average_precision_score(label, score))
    best = max(f1_score(label, score >= threshold) for threshold in np.unique(score))
    assert found.f1 == pytest.approx(best)
    assert f1_score(label, score >= found.threshold) == pytest.approx(best)


def test_a_class_of_a_known_name_begins_with_what_the_model_knows() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(400, 64)).astype(np.float32)
    known = rng.normal(size=(1, 64)).astype(np.float32)
    present = normalised(embeddings) @ known.T > 0
    few = np.concatenate([np.flatnonzero(present)[:2], np.flatnonzero(~present)[:2]])
    right = []
    for weight in (None, known):
        taught = (embeddings[few], present[few], np.ones((4, 1), bool), np.arange(4, dtype=np.int32))
        fitted = fit(Examples(("a",), *taught, weight), 0)
        made = OwnClasses(("a",), (0.5,), "", "", 2.0, fitted.weight, fitted.bias)
        right.append(average_precision_score(present[:, 0], made.scores(embeddings)[:, 0]))
    assert right[0] < 0.8
    assert right[1] > 0.95


def test_a_class_is_recognised_and_background_lowers_its_scores_elsewhere() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 32))
    embeddings = np.concatenate([centre + 0.5 * rng.normal(size=(20, 32)) for centre in centres]).astype(np.float32)
    present = np.repeat(np.eye(3, dtype=bool), 20, axis=0)[:, :2]
    group = np.arange(60, dtype=np.int32)
    examples = Examples(("a", "b"), embeddings, present, np.ones_like(present), group)
    fitted = fit(examples, 0)
    assert ((fitted.held_out > 0.5) == present).all()
    made = OwnClasses(("a", "b"), (0.5, 0.5), "", "", 2.0, fitted.weight, fitted.bias)
    assert ((made.scores(embeddings) > 0.5) == present).all()
