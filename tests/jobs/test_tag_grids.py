"""`satpipe tag --grids`: finer rows in the same tables, which every command reads as it reads others."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import ROOT, Satpipe
from helpers import model_by_rule
from satpipe.jobs.evaluate import read
from satpipe.jobs.evaluate.detection import on_grid
from satpipe.jobs.ground_truth import class_set, read_strong, select
from satpipe.jobs.metrics import counts, sed
from satpipe.pipeline.tables.dataframes import read_scores
from satpipe.sat.model.config import get_config
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.weights.published import save
from satpipe.sat.weights.registry import load_model
from tag_tables import scores

EXAMPLES = ROOT / "examples"
HOP_S = 0.48
LENGTH_S = 21.0  # 43.75 hops, 10.9 chunks
SCENES = 3


@pytest.fixture(scope="module")
def scenes(satpipe_here: Satpipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grids") / "scenes"
    options = ("--scenes", SCENES, "--length-s", LENGTH_S, "--foreground", EXAMPLES / "sounds.csv")
    done = satpipe_here("synth", "-o", folder, *options)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def out(satpipe_here: Satpipe, scenes: Path) -> Path:
    out = scenes.parent / "out"
    done = satpipe_here("tag", scenes / "audio", "-o", out, "--grids", 4)
    assert done.returncode == 0, done.stderr
    assert "2 s delay, memory, 4 grids, " in done.stdout
    return out


def test_a_row_is_a_stretch_of_the_hop_and_has_its_scores(scenes: Path, out: Path) -> None:
    table = scores(out)
    model = load_model("bundled", grids=4)
    for name, rows in table.groupby("recording"):
        waveform, _ = soundfile.read(scenes / "audio" / str(name), dtype="float32")
        tagger = StreamingTagger(model)
        expected = torch.cat([tagger.push(torch.from_numpy(waveform)), tagger.finish()])
        assert list(rows.chunk) == list(range(44))
        np.testing.assert_allclose(rows.start_s, np.arange(44) * HOP_S, rtol=0, atol=1e-12)
        np.testing.assert_allclose(rows.end_s, [*np.arange(1, 44) * HOP_S, LENGTH_S], rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.stack(rows.scores).astype(np.float32), expected, rtol=2**-10, atol=1e-5)
    assert table.recording.nunique() == SCENES
    run = json.loads((out / "run.json").read_text())
    assert (run["identity"]["grids"], run["identity"]["combine"], run["chunk_s"]) == (4, "geometric", HOP_S)
    assert run["model"]["chunk_samples"] == 7_680


def test_the_rows_do_not_depend_on_spans(satpipe_here: Satpipe, scenes: Path, out: Path, tmp_path: Path) -> None:
    done = satpipe_here("tag", scenes / "audio", "-o", tmp_path, "--grids", 4, "--span-s", 10)
    assert done.returncode == 0, done.stderr
    cut, whole = scores(tmp_path), scores(out)
    columns = ["recording", "chunk", "start_s", "end_s"]
    pd.testing.assert_frame_equal(cut[columns], whole[columns])
    np.testing.assert_allclose(
        np.stack(cut.scores).astype(np.float32), np.stack(whole.scores).astype(np.float32), rtol=2**-10, atol=1e-5
    )


def test_other_grids_in_the_same_folder_are_refused(satpipe_here: Satpipe, scenes: Path, out: Path) -> None:
    before = scores(out)
    for options, text in (
        ((), "grids 4, now 1"),
        (("--grids", 2), "grids 4, now 2"),
        (("--grids", 4, "--combine", "sharp"), "combine 'geometric', now 'sharp'"),
    ):
        done = satpipe_here("tag", scenes / "audio", "-o", out, *options)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    pd.testing.assert_frame_equal(scores(out), before)


def test_a_folder_of_a_version_without_grids_is_continued(satpipe_here: Satpipe, scenes: Path, tmp_path: Path) -> None:
    one, out = scenes / "audio" / "scene_00000.wav", tmp_path / "out"
    assert satpipe_here("tag", one, "-o", out).returncode == 0
    run = json.loads((out / "run.json").read_text())
    del run["identity"]["grids"], run["identity"]["combine"]
    (out / "run.json").write_text(json.dumps(run))
    assert read_scores(out, labels=["Speech"]).chunk.max() == 10
    done = satpipe_here("tag", one, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "grids" not in done.stdout


def test_events_begin_and_end_on_the_finer_grid(satpipe_here: Satpipe, out: Path, tmp_path: Path) -> None:
    done = satpipe_here("events", out, "-o", tmp_path / "events.csv", "--threshold", 0.2)
    assert done.returncode == 0, done.stderr
    events = pd.read_csv(tmp_path / "events.csv")
    hops = events.start_s / HOP_S
    assert len(events) > 5
    np.testing.assert_allclose(hops, hops.round(), atol=1e-6)
    assert (hops.round() % 4 != 0).any()  # not only on the grid of chunks


def test_evaluate_knows_the_ceiling_of_the_finer_grid(
    satpipe_here: Satpipe, scenes: Path, out: Path, tmp_path: Path
) -> None:
    truth = scenes / "strong.tsv"
    done = satpipe_here(
        "evaluate", out, "--strong", truth, "--weak", scenes / "weak.csv", "--classes", 527, "-o", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "gapless, 4 grids, fp32" in done.stdout
    figures = {(each["name"], each["average"]): each for each in read(tmp_path)["figures"]}
    assert {each["grids"] for each in figures.values()} == {4}
    labels = read_strong(truth, "error")
    events, seconds = select(labels, class_set("527").labels), np.full(SCENES, LENGTH_S)
    ceilings = {}
    for samples in (7_680, 30_720):
        best = on_grid(events, samples, seconds)
        counted = sed.count_events(events, best, collar_s=0.2, offset_fraction=None, clips=SCENES, classes=527)
        ceilings[samples] = float(counts.micro_rates(counts.totals(counted)).f1[0])
    assert figures["onset_f1_ceiling", "micro"]["value"] == pytest.approx(ceilings[7_680])
    assert ceilings[7_680] > ceilings[30_720] + 0.1


def test_a_report_is_made_of_finer_rows(satpipe_here: Satpipe, out: Path, tmp_path: Path) -> None:
    done = satpipe_here("report", out, "-o", tmp_path / "page.html", "--threshold", 0.2)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "chunks of 0.48 s, gapless, memory on, delay 2 s, 4 grids, fp32" in page


def test_grids_that_cannot_be_are_one_clear_line(satpipe_here: Satpipe, scenes: Path, tmp_path: Path) -> None:
    full = tmp_path / "full.safetensors"
    save(model_by_rule(get_config("audiotransformer_tiny")), full)
    for options, code, text in (
        (("--grids", 5), 1, "--grids must divide the 12 patches of a chunk of SAT_T_2s: 1, 2, 3, 4, 6 or 12, not 5"),
        (("--grids", 0), 2, "--grids"),
        (("--grids", 4, "--cut", "script"), 1, "omit --cut script"),
        (("--combine", "sharp"), 1, "--combine sharp needs --grids 2 or more"),
        (("--grids", 2, "--model", full), 1, "audiotransformer_tiny reads 10 s at once: --grids also needs --delay-s"),
        (("--grids", 5, "--model", full, "--delay-s", 2), 1, "the 12 patches of a chunk of audiotransformer_tiny"),
    ):
        done = satpipe_here("tag", scenes / "audio", "-o", tmp_path / "out", *options)
        assert (done.returncode, text in done.stderr) == (code, True), (options, done.stderr)
        assert not (tmp_path / "out").exists()
