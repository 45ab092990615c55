"""`satpipe tag` as a person uses it: the command, and the files it leaves."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from conftest import Satpipe
from helpers import model_by_rule, scores_of_pieces
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.model.config import BUNDLED, CUTS, Cut, get_config
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.weights.published import save
from satpipe.sat.weights.registry import load_checkpoint
from tag_tables import (
    EXAMPLES,
    NAMES,
    assert_same_tables,
    make_recordings,
    recordings,
    samples_16k,
    scores,
    tags,
)


@pytest.fixture(scope="module")
def run(satpipe: Satpipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The examples, tagged as the README says: Ray started by the command, which also lists what it imports."""
    out = tmp_path_factory.mktemp("examples") / "out"
    done = satpipe("tag", EXAMPLES, "-o", out, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def tagged(run: tuple[Path, subprocess.CompletedProcess[str]]) -> tuple[Path, str]:
    """The examples, tagged, and what was printed."""
    return run[0], run[1].stdout


def test_only_workers_import_torch(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    listed = [line for line in run[1].stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in listed}
    assert "satpipe.pipeline.tagging.run" in imported
    assert "torch" not in imported


def test_the_examples_get_true_tags(tagged: tuple[Path, str]) -> None:
    out, _ = tagged
    table = pd.read_parquet(out / "scores").astype({"recording": str})
    mids = [label["mid"] for label in json.loads((out / "run.json").read_text())["labels"]]
    with (EXAMPLES.parent / "expected.csv").open() as file:
        expected = {row["recording"]: row for row in csv.DictReader(file)}
    assert sorted(expected) == NAMES == sorted(table.recording.unique())
    for name, rows in table.groupby("recording"):
        best = np.argsort(-np.stack(rows.scores).astype(np.float32).mean(0))[:5]
        assert expected[name]["mid"] in [mids[i] for i in best], f"{name} is not {expected[name]['label']}"


def test_the_tables_hold_what_the_model_says_of_the_recordings(tagged: tuple[Path, str]) -> None:
    out, _ = tagged
    model = load_checkpoint(BUNDLED).model()
    table = scores(out)
    kept = tags(out)
    for name in NAMES:
        tagger = StreamingTagger(model)
        expected = torch.cat([tagger.push(samples_16k(EXAMPLES / name)), tagger.finish()]).numpy()
        rows = table[table.recording == name]
        assert list(rows.chunk) == list(range(len(expected)))
        np.testing.assert_allclose(np.stack(rows.scores).astype(np.float32), expected, rtol=2**-10, atol=1e-5)
        best = np.sort(expected, axis=1)[:, ::-1][:, :10]
        ours = kept[kept.recording == name].sort_values(["chunk", "score"], ascending=[True, False])
        np.testing.assert_allclose(ours.score, best[best >= 0.1], rtol=0, atol=1e-5)


def test_run_json_tells_what_made_the_tables_and_the_command_says_which_model(tagged: tuple[Path, str]) -> None:
    out, printed = tagged
    run = json.loads((out / "run.json").read_text())
    assert run["model"]["sha256"] == load_checkpoint(BUNDLED).sha256 == run["identity"]["model_sha256"]
    assert run["identity"]["cut"] == "gapless"
    assert (run["identity"]["memory"], run["identity"]["delay_s"], run["chunk_s"]) == ("on", 2.0, 1.92)
    assert (run["model"]["streaming"], run["model"]["chunk_samples"]) == (True, 30_720)
    assert len(run["labels"]) == 527
    assert run["labels"][0] == {"index": 0, "mid": "/m/09x0r", "name": "Speech"}
    assert {"satpipe", "torch", "ray", "python"} <= set(run["versions"])
    assert "SAT_T_2s" in printed
    assert "satpipe models pull" in printed
    assert not (out / "_staged").exists()


@pytest.mark.slow
def test_what_is_finished_is_not_tagged_again_and_what_changed_is(
    tagged: tuple[Path, str], satpipe_here: Satpipe, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(EXAMPLES, folder)
    shutil.copytree(tagged[0], out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    done = satpipe_here("tag", folder, "-o", out)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before

    changed, untouched = folder / "speech_16k_mono.WAV", tags(out)
    soundfile.write(changed, np.zeros(160_000, np.float32), 16_000, format="WAV")
    (folder / "drums_44k1_stereo.flac").unlink()
    shutil.copy(EXAMPLES / "bells_32k_mono.aiff", folder / "new.AIFF")
    dry = satpipe_here("tag", folder, "-o", out, "--dry-run")
    assert "1 recording changed or failed" in dry.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    done = satpipe_here("tag", folder, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "1 recording in the tables without a file: rows kept" in done.stdout
    table = tags(out)
    rest = ~table.recording.isin(["speech_16k_mono.WAV", "new.AIFF"])
    pd.testing.assert_frame_equal(
        table[rest].reset_index(drop=True),
        untouched[untouched.recording != "speech_16k_mono.WAV"].reset_index(drop=True),
    )
    assert set(table[table.recording == "speech_16k_mono.WAV"].label) & {"Speech"} == set()
    assert recordings(out).index.is_unique
    assert len(scores(out)) == recordings(out).chunks.sum()
    bells = scores(out)[scores(out).recording.isin(["bells_32k_mono.aiff", "new.AIFF"])]
    assert len(bells) == 6  # the same sound twice

    done = satpipe_here("tag", folder, "-o", out, "--prune")
    assert done.returncode == 0, done.stderr
    assert "1 recording in the tables without a file: rows removed" in done.stdout
    pd.testing.assert_frame_equal(tags(out), table[table.recording != "drums_44k1_stereo.flac"].reset_index(drop=True))
    assert "drums_44k1_stereo.flac" not in recordings(out).index


@pytest.mark.slow
def test_the_tables_do_not_depend_on_workers_spans_or_order(satpipe_here: Satpipe, tmp_path: Path) -> None:
    folder = make_recordings(tmp_path / "in", 2, 95.3)
    sound, _ = soundfile.read(folder / "000.wav", dtype="float32")
    for rate_hz, name in ((44_100, "b.flac"), (48_000, "c.aiff")):
        soundfile.write(folder / name, soxr.resample(sound, 16_000, rate_hz), rate_hz)
    whole, cut, alone = tmp_path / "whole", tmp_path / "cut", tmp_path / "alone"
    assert satpipe_here("tag", folder, "-o", whole, "--span-s", 1000).returncode == 0
    assert satpipe_here("tag", folder, "-o", cut, "--span-s", 30).returncode == 0
    files = sorted(folder.iterdir(), reverse=True)
    assert satpipe_here("tag", *files, "-o", alone, "--workers", 1).returncode == 0
    assert_same_tables(cut, whole)
    assert_same_tables(alone, whole)


@pytest.mark.slow
def test_bf16_changes_no_score_by_more_than_a_hundredth(satpipe_here: Satpipe, tmp_path: Path) -> None:
    everything = ("--threshold", 0, "--top-k", 527, "--no-scores")
    assert satpipe_here("tag", EXAMPLES, "-o", tmp_path / "fp32", *everything).returncode == 0
    assert satpipe_here("tag", EXAMPLES, "-o", tmp_path / "bf16", *everything, "--precision", "bf16").returncode == 0
    assert not (tmp_path / "fp32" / "scores").exists()
    fp32, bf16 = tags(tmp_path / "fp32"), tags(tmp_path / "bf16")
    assert len(fp32) == len(bf16) == 527 * recordings(tmp_path / "fp32").chunks.sum()
    difference = (fp32.score - bf16.score).abs()
    assert 0 < difference.max() <= 0.01


@pytest.mark.slow
def test_the_script_cut_reads_two_seconds_at_a_time(satpipe_here: Satpipe, tmp_path: Path) -> None:
    name = "speech_16k_mono.WAV"
    assert satpipe_here("tag", EXAMPLES / name, "-o", tmp_path, "--cut", "script").returncode == 0
    tagger = StreamingTagger(load_checkpoint(BUNDLED).model(), "script")
    expected = torch.cat([tagger.push(samples_16k(EXAMPLES / name)), tagger.finish()])
    table = scores(tmp_path)
    assert list(table.start_s) == [0.0, 2.0, 4.0, 6.0, 8.0]
    np.testing.assert_allclose(np.stack(table.scores).astype(np.float32), expected, rtol=2**-10, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_with_the_memory_off_each_chunk_is_tagged_alone(satpipe_here: Satpipe, tmp_path: Path, cut: Cut) -> None:
    folder, out = make_recordings(tmp_path / "in", 1, 45), tmp_path / "out"
    arguments = ("tag", folder, "-o", out, "--cut", cut, "--span-s", 10)
    done = satpipe_here(*arguments, "--memory", "off")
    assert done.returncode == 0, done.stderr
    model, recording = load_checkpoint(BUNDLED).model(), samples_16k(folder / "000.wav")
    ours = np.stack(scores(out).scores).astype(np.float32)
    np.testing.assert_allclose(ours, scores_of_pieces(model, recording, cut, 192, 32_000), rtol=2**-10, atol=1e-5)
    tagger = StreamingTagger(model, cut)
    remembering = torch.cat([tagger.push(recording), tagger.finish()]).numpy()
    first, *later = np.abs(ours - remembering).max(1)
    assert (first < 1e-3) == (cut == "gapless")  # in the script cut the memory is warmed with silence
    assert min(later) > 1e-3
    run = json.loads((out / "run.json").read_text())
    assert (run["identity"]["memory"], run["identity"]["delay_s"]) == ("off", 2.0)
    assert (run["chunk_s"], run["model"]["streaming"]) == (1.92 if cut == "gapless" else 2.0, True)

    before = scores(out)
    done = satpipe_here(*arguments)
    assert (done.returncode, "memory 'off', now 'on'" in done.stderr) == (1, True)
    pd.testing.assert_frame_equal(scores(out), before)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
def test_a_full_context_model_reads_as_much_at_a_time_as_asked_for(
    satpipe_here: Satpipe, tmp_path: Path, cut: Cut
) -> None:
    model = model_by_rule(get_config("audiotransformer_tiny"))
    save(model, tmp_path / "vit.safetensors")
    name, out = "speech_16k_mono.WAV", tmp_path / "out"
    arguments = ("tag", EXAMPLES / name, "-o", out, "--cut", cut)
    arguments += ("--model", tmp_path / "vit.safetensors")
    done = satpipe_here(*arguments, "--delay-s", 2)
    assert done.returncode == 0, done.stderr
    table, chunk_samples = scores(out), 30_720 if cut == "gapless" else 32_000
    assert list(table.start_s) == [chunk * chunk_samples / 16_000 for chunk in range(6 if cut == "gapless" else 5)]
    assert table.end_s.max() == 10.0
    expected = scores_of_pieces(model, samples_16k(EXAMPLES / name), cut, 192, 32_000)
    np.testing.assert_allclose(np.stack(table.scores).astype(np.float32), expected, rtol=2**-10, atol=1e-5)
    run = json.loads((out / "run.json").read_text())
    assert (run["identity"]["memory"], run["identity"]["delay_s"]) == ("off", 2.0)
    assert (run["chunk_s"], run["model"]["chunk_samples"]) == (chunk_samples / 16_000, chunk_samples)
    assert not run["model"]["streaming"]

    assert satpipe_here(*arguments, "--delay-s", 2, "--memory", "off").returncode == 0  # it has none that could be on
    for other, text in ((("--delay-s", 1), "delay_s 2.0, now 1.0"), ((), "delay_s 2.0, now 10.0")):
        done = satpipe_here(*arguments, *other)
        assert (done.returncode, text in done.stderr) == (1, True)
    done = satpipe_here(*arguments, "--delay-s", 12)
    assert (done.returncode, "must be 0.16 s to 10.08 s" in done.stderr) == (1, True)


def test_channels_can_be_tagged_apart(satpipe_here: Satpipe, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    speech, birds = samples_16k(EXAMPLES / NAMES[-1])[:80_000], samples_16k(EXAMPLES / NAMES[2])[:80_000]
    soundfile.write(folder / "two.wav", torch.stack([speech, birds], 1).numpy(), 16_000, subtype="FLOAT")
    soundfile.write(folder / "left.wav", speech.numpy(), 16_000, subtype="FLOAT")
    split, second = tmp_path / "split", tmp_path / "second"
    assert satpipe_here("tag", folder, "-o", split, "--channels", "split").returncode == 0
    table = scores(split).set_index("recording")
    assert sorted(set(table.index)) == ["left.wav", "two.wav#ch1", "two.wav#ch2"]
    left, first, other = (np.stack(table.loc[name].scores) for name in ("left.wav", "two.wav#ch1", "two.wav#ch2"))
    np.testing.assert_allclose(first.astype(np.float32), left.astype(np.float32), rtol=2**-10, atol=1e-5)
    assert np.abs(other.astype(np.float32) - left.astype(np.float32)).max() > 0.05
    before = [path.name for path in split.rglob("*.parquet")]
    assert satpipe_here("tag", folder, "-o", split, "--channels", "split").returncode == 0
    assert [path.name for path in split.rglob("*.parquet")] == before

    done = satpipe_here("tag", folder, "-o", second, "--channels", "2")
    assert done.returncode == 3
    assert recordings(second).loc["left.wav"].reason == "it has 1 channels, no channel 2"
    ours = np.stack(scores(second).scores).astype(np.float32)
    np.testing.assert_allclose(ours, other.astype(np.float32), rtol=2**-10, atol=1e-5)


def test_bad_recordings_are_rows_with_a_reason_and_the_rest_is_tagged(satpipe_here: Satpipe, tmp_path: Path) -> None:
    folder = make_recordings(tmp_path / "in", 1, 10)
    sound, _ = soundfile.read(folder / "000.wav", dtype="float32")
    (folder / "text.wav").write_text("this is no audio\n" * 10)
    (folder / "nothing.flac").write_bytes(b"")
    soundfile.write(folder / "header.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "broken.flac", sound, 16_000)
    whole = (folder / "broken.flac").read_bytes()
    (folder / "broken.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(
        folder / "nan.wav", np.where(np.arange(len(sound)) == 50_000, np.nan, sound), 16_000, subtype="FLOAT"
    )
    soundfile.write(folder / "short.wav", sound[:1000], 16_000)
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (folder / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    out = tmp_path / "out"
    done = satpipe_here("tag", folder, "-o", out)
    assert done.returncode == 3
    table = recordings(out)
    assert dict(table.status) == {
        "000.wav": "ok",
        "broken.flac": "truncated",
        "gone.wav": "unreadable",
        "header.wav": "empty",
        "nan.wav": "invalid samples",
        "nothing.flac": "unreadable",
        "phone.m4a": "unreadable",
        "short.wav": "short",
        "text.wav": "unreadable",
    }
    assert table.reason["000.wav"] == ""
    assert (table.reason[table.status != "ok"].str.len() > 10).all()
    assert "3.125 s" in table.reason["nan.wav"]
    assert "8 recordings with a problem" in done.stdout
    rows = scores(out).groupby("recording").size()
    assert dict(rows) == {"000.wav": 6, "broken.flac": table.chunks["broken.flac"], "nan.wav": 6, "short.wav": 1}
    assert 2 <= rows["broken.flac"] < 6
    good = scores(out).set_index("recording")
    np.testing.assert_allclose(  # up to the break, the scores are those of the whole recording
        np.stack(good.loc["broken.flac"].scores).astype(np.float32)[:-1],
        np.stack(good.loc["000.wav"].scores).astype(np.float32)[: rows["broken.flac"] - 1],
        rtol=2**-10,
        atol=1e-5,
    )
    again = satpipe_here("tag", folder, "-o", out)
    assert again.returncode == 3  # the tables still hold recordings that are not tagged
    pd.testing.assert_frame_equal(recordings(out), table)


def test_what_cannot_work_is_one_clear_line(
    satpipe_here: Satpipe, satpipe: Satpipe, tagged: tuple[Path, str], tmp_path: Path
) -> None:
    out, empty = tagged[0], tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "file").write_text("")
    cases = [
        (("tag", empty, "-o", tmp_path / "o"), 1, "no recordings in"),
        (("tag", tmp_path / "nowhere", "-o", tmp_path / "o"), 1, "nowhere not found"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--model", "SAT_T_3s"), 1, "SAT_T_2s"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--model", tmp_path / "no.pt"), 1, "no.pt not found"),
        (("tag", EXAMPLES, "-o", tmp_path / "file" / "o"), 1, "cannot be written"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--channels", "left"), 1, "--channels"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--device", "cuda"), 1, "no GPU"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--address", "127.0.0.1:1"), 1, "no Ray cluster answers"),
        (("tag", EXAMPLES, "-o", out, "--threshold", "0.2"), 1, "threshold 0.1, now 0.2"),
        (("tag", EXAMPLES, "-o", out, "--cut", "script"), 1, "cut 'gapless', now 'script'"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--delay-s", "1"), 1, "SAT_T_2s has a delay of 2 s"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--memory", "half"), 2, "--memory"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--delay-s", "long"), 2, "--delay-s"),
        (("tag", EXAMPLES, "-o", tmp_path / "o", "--threshold", "2"), 2, "threshold"),
    ]
    before = tags(out)
    for arguments, code, text in cases:
        done = (satpipe if "--address" in arguments else satpipe_here)(*arguments)
        assert (done.returncode, text in done.stderr) == (code, True), (arguments, done.stderr)
    pd.testing.assert_frame_equal(tags(out), before)


def test_overwrite_replaces_the_tables(satpipe_here: Satpipe, tagged: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tagged[0], out)
    options = ("--threshold", 0.3, "--overwrite")
    assert satpipe_here("tag", EXAMPLES / "speech_16k_mono.WAV", "-o", out, *options).returncode == 0
    assert len(recordings(out)) == 1
    assert tags(out).score.min() >= 0.3


def test_two_runs_into_one_folder_do_not_mix(satpipe_here: Satpipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Output(out).claim({"id": "a", "identity": {"scores": True}}):
        done = satpipe_here("tag", EXAMPLES, "-o", out)
    assert done.returncode == 1
    assert "is being written by another satpipe" in done.stderr
