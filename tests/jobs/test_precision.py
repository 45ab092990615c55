"""`--precision`: `auto` chooses once per output folder, and a precision that is slower than fp32 is noted."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import satpipe as api
import torch
from conftest import Satpipe
from satpipe.jobs.options.tag import StreamOptions
from satpipe.jobs.stream import lines
from satpipe.sat.taggers.comparison import WORTH, Comparison
from tag_tables import EXAMPLES, assert_same_tables, make_recordings, scores

SPEECH = EXAMPLES / "speech_16k_mono.WAV"
COMPARED = re.compile(r"bf16 is ([0-9.e-]+) times as fast as fp32")


def run_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("recordings"), 2, 4.0)


def test_auto_takes_the_precision_that_is_faster_here(satpipe_here: Satpipe, folder: Path, tmp_path: Path) -> None:
    done = satpipe_here("tag", folder, "-o", tmp_path / "auto", "--precision", "auto")
    assert done.returncode == 0, done.stderr
    chosen = run_of(tmp_path / "auto")["identity"]["precision"]
    assert f"note: --precision auto: {chosen} (" in done.stderr
    times = float(COMPARED.search(done.stderr)[1])  # type: ignore[index]
    assert chosen == ("bf16" if times >= WORTH else "fp32") or times == pytest.approx(WORTH, abs=0.05)  # as rounded
    log = next((tmp_path / "auto" / "log").iterdir()).read_text()
    assert f"--precision auto: {chosen}" in log
    given = satpipe_here("tag", folder, "-o", tmp_path / "given", "--precision", chosen)
    assert given.returncode == 0, given.stderr
    assert_same_tables(tmp_path / "auto", tmp_path / "given")
    again = satpipe_here("tag", folder, "-o", tmp_path / "auto", "--precision", chosen)
    assert (again.returncode, again.stderr) == (0, "")
    other = {"fp32": "bf16", "bf16": "fp32"}[chosen]
    refused = satpipe_here("tag", folder, "-o", tmp_path / "auto", "--precision", other)
    assert refused.returncode == 1
    assert f"was made with another precision '{chosen}', now '{other}'" in refused.stderr


def test_auto_keeps_the_precision_of_the_tables_and_what_is_slower_is_noted(ray_here: None, tmp_path: Path) -> None:
    folder, out = make_recordings(tmp_path / "in", 1, 4.0), tmp_path / "out"
    api.tag(folder, out=out, precision="bf16")
    make_recordings(tmp_path / "in", 2, 4.0)
    api.tag(folder, out=out, precision="auto")
    assert run_of(out)["identity"]["precision"] == "bf16"
    api.tag(folder, out=tmp_path / "fp32")
    ours, exact = (
        np.stack(scores(each).sort_values(["recording", "chunk"]).scores) for each in (out, tmp_path / "fp32")
    )
    assert 0 < np.abs(ours - exact).max() <= 0.01
    assert (ours != exact).any(axis=1).all()
    log = "\n".join(path.read_text() for path in (out / "log").iterdir())
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        assert "takes less time" in log
    assert all(float(times) < 1 for times in COMPARED.findall(log))


def test_a_run_that_ended_before_it_chose_binds_nobody(satpipe_here: Satpipe, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert satpipe_here("tag", folder, "-o", out).returncode == 0
    run = run_of(out)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_text(json.dumps(run | {"identity": run["identity"] | {"precision": "auto"}}))
    done = satpipe_here("tag", folder, "-o", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    assert_same_tables(tmp_path / "new", out)


def test_a_stream_says_which_precision_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    start, *_ = lines(StreamOptions(sources=(str(SPEECH),), idle_s=0, precision="auto"))
    assert start["precision"] in ("fp32", "bf16")
    assert f"note: --precision auto: {start['precision']} (bf16 is " in capsys.readouterr().err
    start, *_ = lines(StreamOptions(sources=(str(SPEECH),), idle_s=0))
    assert start["precision"] == "fp32"
    assert not capsys.readouterr().err


def test_what_is_hardly_faster_is_not_worth_rounded_scores() -> None:
    assert Comparison({"bf16": 1.05}, "here").fastest == "fp32"
    gpu = Comparison({"bf16": 2.0, "fp16": 2.25}, "here")
    assert gpu.fastest == "fp16"
    told = "bf16 is 2 times as fast as fp32, fp16 is 2.2 times as fast as fp32 on here"
    assert gpu.note("auto") == f"--precision auto: fp16 ({told})"
    assert not gpu.note("bf16")
    assert Comparison({"bf16": 0.345}, "here").note("bf16") == (
        "bf16 is 0.34 times as fast as fp32 on here: --precision fp32 takes less time"
    )
    assert Comparison({}, "here").note("auto") == "--precision auto: fp32"
