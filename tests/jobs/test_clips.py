"""`satpipe clips`: events drawn and cut from recordings of any kind, with a sheet for answers."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import satpipe
import soundfile
from audio import noise, write
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs import CHUNK_S, IDENTITY, RUN, scores_of, set_clock, set_files, write_output
from satpipe.jobs.clips.draw import STRATA, allocated, draw
from satpipe.jobs.clips.names import names
from satpipe.jobs.commands.main import cli
from satpipe.jobs.evaluate import evaluate
from satpipe.jobs.ground_truth.sheet import COLUMNS, read_sheet, read_stretches, sheet_text
from satpipe.pipeline.storage import filesystem
from satpipe.sat.errors import ConfigError, OutputError, TruthError

Tagged = Callable[..., Path]
BIRD = "/m/015p6"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)


def tones(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> npt.NDArray[np.float32]:
    """Sound whose pitch shows the second: 400 Hz and 10 Hz more with each second."""
    at = np.arange(int(seconds * rate_hz)) / rate_hz
    sound = (0.1 * np.sin(2 * np.pi * np.cumsum(400 + 10 * np.floor(at)) / rate_hz)).astype(np.float32)
    return np.stack([sound] * channels, axis=1) if channels > 1 else sound


def pitch_hz(samples: npt.NDArray[Any], rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**18))
    return float(np.argmax(spectrum) * rate_hz / 2**18)


@pytest.fixture
def tagged(tmp_path: Path) -> Tagged:
    """Write the tables of recordings with given scores, as if their files had just been tagged."""

    def make(
        given: object, scores: Mapping[str, Any], channels: str = "mix", files: Mapping[str, Any] | None = None
    ) -> Path:
        out = tmp_path / "out"
        run = {**RUN, "inputs": [str(given)], "identity": {**IDENTITY, "channels": channels}}
        write_output(out, scores, run=run)
        set_files(out, {name: state(given, name.partition("#")[0], (files or {}).get(name)) for name in scores})
        return out

    def state(given: object, name: str, files: Any) -> dict[str, Any]:
        if "://" in str(given):
            known = SimpleNamespace(st_size=filesystem(str(given)).info(f"/bucket/{name}")["size"], st_mtime_ns=0)
        else:
            known = os.stat(Path(str(given), name))
        return {"size_bytes": known.st_size, "modified": known.st_mtime_ns // 1000, "files": files}

    return make


@pytest.fixture
def night(tmp_path: Path, tagged: Tagged) -> Path:
    """Tables of two recordings of 38.4 s with birds of many scores."""
    folder = tmp_path / "in"
    folder.mkdir()
    scores = {}
    for name, lift in (("a.wav", 0.0), ("b.wav", 0.02)):
        write(folder / name, tones(38.4))
        scores[name] = scores_of(20, Bird=[0, 0.3 + lift, 0, 0.5, 0, 0.7, 0, 0.9 - lift, 0, 0.4 + lift], Dog=[0.6])
    return tagged(folder, scores)


def test_a_clip_is_the_event_with_padding_at_the_rate_of_the_recording(tmp_path: Path, tagged: Tagged) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    write(folder / "deep" / "=ü, x.flac", tones(19.2, 48_000, channels=2), 48_000, subtype="PCM_24")
    out = tagged(folder, {"deep/=ü, x.flac": scores_of(10, Bird=[0] * 3 + [0.9] + [0] * 2 + [0.5] * 4)})
    set_clock(out, {"deep/=ü, x.flac": (pd.Timestamp("2025-05-01T03:00:00Z").to_pydatetime(), None)})
    done = run("clips", out, "-o", tmp_path / "clips", "--labels", "Bird", "--length-s", "5")
    assert done.exception is None, done.output
    assert "2 clips" in done.stdout
    assert "Bird (2 of 2)" in done.stdout
    first, second = read_stretches(tmp_path / "clips" / "sheet.csv")
    assert (first.recording, first.mid) == ("deep/=ü, x.flac", BIRD)
    assert (first.start_s, first.end_s) == pytest.approx((3 * CHUNK_S, 4 * CHUNK_S))
    assert (second.start_s + second.end_s) / 2 == pytest.approx((6 * CHUNK_S + 9.5 * CHUNK_S) / 2)  # the middle
    assert second.end_s - second.start_s == pytest.approx(3)
    sheet = pd.read_csv(tmp_path / "clips" / "sheet.csv")
    assert tuple(sheet) == COLUMNS
    assert sheet.time_local[0] == "2025-05-01T03:00:05.760+00:00"
    samples, rate_hz = soundfile.read(tmp_path / "clips" / sheet["clip"][0])
    whole, _ = soundfile.read(folder / "deep" / "=ü, x.flac")
    begin = round((first.start_s - 1) * 48_000)
    assert rate_hz == 48_000
    np.testing.assert_array_equal(samples, whole[begin : begin + len(samples)].mean(axis=1))
    assert len(samples) == pytest.approx((CHUNK_S + 2) * 48_000, abs=1)
    assert sheet["clip"].tolist() == sorted(sheet["clip"]) == ["audio/bird_001_0.90.wav", "audio/bird_002_0.50.wav"]


def test_samples_of_sixteen_bits_stay_as_they_are(tmp_path: Path, tagged: Tagged) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.wav", noise(19 * 16_000), subtype="PCM_16")
    sheet = satpipe.clips(tagged(folder, {"a.wav": scores_of(10, Bird=[0, 0, 0.9])}), to=tmp_path / "clips")
    clip = tmp_path / "clips" / sheet["clip"][0]
    begin = round((2 * CHUNK_S - 1) * 16_000)
    whole, part = (soundfile.read(path, dtype="int16")[0] for path in (folder / "a.wav", clip))
    assert soundfile.info(clip).subtype == "PCM_16"
    np.testing.assert_array_equal(part, whole[begin : begin + len(part)])


def test_clips_are_cut_from_channels_joined_files_and_stores(tmp_path: Path, tagged: Tagged) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    scores = scores_of(10, Bird=[0] * 5 + [0.9])  # from 9.6 to 11.52 s
    both = np.stack([noise(int(19.2 * 16_000)), tones(19.2)], axis=1)
    write(folder / "two.wav", both)
    satpipe.clips(tagged(folder, {"two.wav#ch2": scores}, "split"), to=tmp_path / "split")

    parts = np.split(tones(19.2), [9 * 16_000, 11 * 16_000])
    paths = [write(folder / f"{number}.wav", part) for number, part in enumerate(parts)]
    files = [
        {"file": path.name, "start_s": start_s, "duration_s": 1.0, "size_bytes": path.stat().st_size,
         "modified": path.stat().st_mtime_ns // 1000, "header": None, "header_time": None}
        for path, start_s in zip(paths, (0.0, 9.0, 11.0), strict=True)
    ]  # fmt: skip
    (tmp_path / "out").rename(tmp_path / "before")
    satpipe.clips(tagged(folder, {"0.wav": scores}, files={"0.wav": files}), to=tmp_path / "joined")

    filesystem("memory://x").put_file(str(write(tmp_path / "s.wav", tones(19.2))), "/bucket/s.wav")
    (tmp_path / "out").rename(tmp_path / "earlier")
    satpipe.clips(tagged("memory:///bucket", {"s.wav": scores}), to="memory:///clips")
    filesystem("memory://x").get("/clips/", str(tmp_path / "store"), recursive=True)
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"audio", "review.html", "sheet.csv"}

    for name in ("split", "joined", "store"):
        samples, rate_hz = soundfile.read(tmp_path / name / "audio" / "bird_001_0.90.wav")
        assert len(samples) == pytest.approx((CHUNK_S + 2) * rate_hz, abs=1)
        for second in (9, 10, 11, 12):  # the clip begins at 8.6 s
            begin = int((second - 8.6) * rate_hz)
            assert pitch_hz(samples[begin + 800 : begin + 7000], rate_hz) == pytest.approx(400 + 10 * second, abs=2)


def test_what_has_moved_is_named_and_the_rest_goes_on(night: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "a.wav").rename(tmp_path / "in" / "c.wav")
    done = run("clips", night, "-o", tmp_path / "clips", "--labels", "Bird")
    assert done.return_value == 3, done.output
    assert "a.wav: its file no longer exists" in done.stderr
    assert {row.recording for row in read_stretches(tmp_path / "clips" / "sheet.csv")} == {"b.wav"}
    (tmp_path / "in" / "c.wav").rename(tmp_path / "in" / "a.wav")
    (tmp_path / "in").rename(tmp_path / "disk")
    os.utime(tmp_path / "disk" / "b.wav", (0, 0))  # as a copy has
    moved = satpipe.clips(night, to=tmp_path / "moved", labels="Bird", moved_to=tmp_path / "disk")
    assert set(moved["recording"]) == {"a.wav", "b.wav"}
    with pytest.raises(ConfigError, match="not found"):
        satpipe.clips(night, to=tmp_path / "nowhere", moved_to=tmp_path / "nothing")
    done = run("clips", night, "-o", tmp_path / "none", "--labels", "Bird")
    assert "no clip could be cut from 2 recordings; a.wav: its file no longer exists" in str(done.exception)
    assert not (tmp_path / "none" / "sheet.csv").exists()


def test_a_name_with_a_line_break_and_a_folder_that_cannot_be_written_are_named(tmp_path: Path, tagged: Tagged) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a\nb.wav", "c.wav"):
        write(folder / name, tones(19.2))
    out = tagged(folder, {name: scores_of(10, Bird=[0, 0.9]) for name in ("a\nb.wav", "c.wav")})
    done = run("clips", out, "-o", tmp_path / "clips")
    assert done.return_value == 3
    assert "its name has line breaks, which a sheet cannot hold" in done.output
    assert [row.recording for row in read_stretches(tmp_path / "clips" / "sheet.csv")] == ["c.wav"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        satpipe.clips(out, to=tmp_path / "file" / "clips")


def test_the_same_seed_gives_the_same_clips_and_answers_are_never_overwritten(night: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"threshold": 0.2, "per_class": 4}
    one, two, other = (
        satpipe.clips(night, to=tmp_path / name, seed=seed, **options)
        for name, seed in (("one", 5), ("two", 5), ("other", 6))
    )
    pd.testing.assert_frame_equal(one, two)
    assert not one[["recording", "start_s"]].equals(other[["recording", "start_s"]])
    for name in ("review.html", "sheet.csv", *one["clip"]):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    bird = satpipe.clips(night, to=tmp_path / "bird", seed=5, labels="Bird", **options)
    pd.testing.assert_frame_equal(bird, one[one.label == "Bird"].reset_index(drop=True))
    with pytest.raises(OutputError, match="exists and may have answers"):
        satpipe.clips(night, to=tmp_path / "one", **options)


def test_the_highest_scores_and_stretches_of_a_file(night: Path, tmp_path: Path) -> None:
    top = satpipe.clips(night, to=tmp_path / "top", labels="Bird", sample="top", per_class=3, threshold=0.3)
    assert top.score.tolist() == pytest.approx([0.9, 0.88, 0.7], abs=0.001)
    assert set(top.stratum) == {"top"}
    assert top.probability.isna().all()
    text = "recording;start_s;end_s;label;score\na.wav;3;4,5;Käuzchen;-0,75\nb.wav;1;2;Bird;0.5\n"
    (tmp_path / "found.csv").write_text(text, encoding="utf-8")
    cut = satpipe.clips(night, to=tmp_path / "found", stretches=tmp_path / "found.csv", pad_s=0.5)
    assert cut[["label", "mid", "start_s", "end_s", "score"]].to_numpy().tolist() == [
        ["Bird", BIRD, 1, 2, 0.5],
        ["Käuzchen", "", 3, 4.5, -0.75],
    ]
    assert cut["clip"].tolist() == ["audio/bird_001_0.50.wav", "audio/kauzchen_001_-0.75.wav"]
    assert soundfile.info(tmp_path / "found" / cut["clip"][1]).duration == pytest.approx(2.5)
    (tmp_path / "point.txt").write_text("recording\tonset\toffset\tlabel\na.wav\t3\t3\tBird\n")
    point = satpipe.clips(night, to=tmp_path / "point", stretches=tmp_path / "point.txt", pad_s=0)
    assert len(soundfile.read(tmp_path / "point" / point["clip"][0])[0]) == 1


def test_wrong_options_are_one_clear_line(night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.csv").write_text("recording,start_s,end_s,label\nx.wav,1,2,Bird\n")
    with pytest.raises(OutputError, match=r"has no recording x.wav"):
        satpipe.clips(night, to=tmp_path / "c", stretches=tmp_path / "s.csv")
    (tmp_path / "late.csv").write_text("recording,start_s,end_s,label\na.wav,1,2,Bird\na.wav,1,2000,Bird\n")
    with pytest.raises(TruthError, match=r"late.csv are outside their recordings:\n  a.wav from 1 s to 2000 s: it is"):
        satpipe.clips(night, to=tmp_path / "c", stretches=tmp_path / "late.csv")
    with pytest.raises(ConfigError, match="--stretches states what to cut: leave out --labels"):
        satpipe.clips(night, to=tmp_path / "c", stretches=tmp_path / "s.csv", labels="Bird")
    with pytest.raises(OutputError, match="no event of these classes that reaches the threshold"):
        satpipe.clips(night, to=tmp_path / "c", labels="Owl")
    with pytest.raises(ConfigError, match="--length-s must be more than twice --pad-s"):
        satpipe.clips(night, to=tmp_path / "c", pad_s=5)
    monkeypatch.setattr("satpipe.jobs.clips.job.MAX_CLIPS", 3)
    with pytest.raises(ConfigError, match=r"clips of 2 classes would be cut, but a page holds 3"):
        satpipe.clips(night, to=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_sheet_with_answers_is_the_truth_of_evaluate(night: Path, tmp_path: Path) -> None:
    sheet = satpipe.clips(night, to=tmp_path / "clips", labels="Bird", threshold=0.3)
    path = tmp_path / "clips" / "sheet.csv"
    sheet = pd.read_csv(path)
    sheet["correct"] = np.where(sheet.score > 0.6, "yes", np.where(sheet.score > 0.45, "no", "unsure"))
    sheet.to_csv(path, index=False)
    found = evaluate(night, strong=path, bootstrap=0, threshold="0.4", classes="527")
    figures = {(each["name"], each["average"]): each["value"] for each in found["figures"]}
    # At 0.4, the four that are right and the two that are not are found; those nobody was sure about do not count.
    assert figures["segment_f1", "micro"] == pytest.approx(2 * 4 / (2 * 4 + 2))


# The sheet


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]))


@given(texts=st.lists(NAMES, min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_any_name_survives_the_sheet_and_none_is_a_formula(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    names = [f"{text.strip()}x" for text in texts]
    rows = [[f"{n}.wav", name, 1.5, 3.25, None, "Bird", BIRD, 0.5, "", "1", 0.25, "ab"] for n, name in enumerate(names)]
    text = sheet_text(rows)
    path = tmp_path_factory.mktemp("sheet") / "sheet.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert [row.recording for row in read_stretches(path)] == names
    assert pd.read_csv(path, keep_default_na=False).recording.map(lambda name: name[0] not in "=+-@").all()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("comma", [True, False])
def test_a_sheet_survives_a_spreadsheet(tmp_path: Path, encoding: str, mark: str, comma: bool) -> None:
    rows = [
        ["audio/a.wav", "=1+1.wav", 1234.5, 1236.0, None, 'Bird, "wild"', "", 0.93, "yes", "3", 1 / 3, "ab"],
        [
            "audio/b.wav",
            "ü.wav",
            0.0,
            2.0,
            "2025-05-01T02:00:00+02:00",
            "Dog",
            "/m/0bt9lr",
            0.5,
            "",
            "1",
            1.0,
            "ab",
        ],
    ]
    saved = pd.read_csv(io.StringIO(sheet_text(rows)[1:]), dtype=str, keep_default_na=False)
    if comma:
        for name in ("start_s", "end_s", "score", "probability"):
            saved[name] = saved[name].str.replace(".", ",")
    saved.loc[1, "correct"] = "UNSURE "
    path = tmp_path / "sheet.csv"
    text = saved.sort_values("clip", ascending=False).to_csv(sep=mark, index=False) + mark * 11 + "\n"
    path.write_text(text, encoding=encoding)
    second, first = read_sheet(path)
    assert (first.correct, second.correct) == ("yes", "unsure")
    assert (first.label, first.score, first.probability) == ('Bird, "wild"', 0.93, pytest.approx(1 / 3))
    assert [(row.recording, row.start_s) for row in read_stretches(path)] == [("ü.wav", 0.0), ("=1+1.wav", 1234.5)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",yes,", ",maybe,", "line 2: 'maybe' must be yes, no, unsure or empty"),
        ("0.9300", "9300", "line 2: score 9300 is not from -1 to 1"),
        ("0.500000000", "0", "line 2: probability 0 is not possible: the clip was drawn"),
        ("audio/b", "audio/a", "line 3: clip audio/a.wav is already in line 2"),
        (",probability", ",chance", "is not a verification sheet of `satpipe clips`: it has no column probability"),
        ("Bird", "B\xfcrd", "is not UTF-8 text, in Excel `CSV UTF-8`"),
    ],
)
def test_what_is_wrong_in_a_sheet_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    rows = [[f"audio/{x}.wav", "r.wav", 1.5, 3.0, None, "Bird", BIRD, 0.93, "yes", "3", 0.5, ""] for x in "ab"]
    (tmp_path / "sheet.csv").write_bytes(sheet_text(rows).replace(old, new, 1).encode("latin-1", "replace")[1:])
    with pytest.raises(TruthError, match=".*") as error:
        read_sheet(tmp_path / "sheet.csv")
    assert message in str(error.value)


# Names and draws


def test_names_are_safe_everywhere_and_differ() -> None:
    labels = ["CON", "Bird, a/b:*?", "Bird a b", "鳥", "虫", "x" * 300]
    found = names(labels, [0.5] * 6)
    assert found == [
        "con_001_0.50", "bird-a-b_001_0.50", "bird-a-b-2_001_0.50", "class_001_0.50", "class-2_001_0.50",
        f"{'x' * 48}_001_0.50",
    ]  # fmt: skip


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 60))
def test_strata_give_equally_many_as_far_as_they_can(sizes: list[int], wanted: int) -> None:
    given_ = allocated(np.array(sizes), wanted)
    assert given_.sum() == min(wanted, sum(sizes))
    assert (given_ <= sizes).all()
    short = given_ < sizes
    if short.any():
        assert given_[short].max() - given_[short].min() <= 1
        assert given_[~short].max(initial=0) <= given_[short].max() + 1


def test_a_stretch_is_drawn_as_often_as_its_probability_says() -> None:
    random = np.random.default_rng(0)
    found = pd.DataFrame({
        "recording": "a", "start_s": np.arange(200.0), "end_s": np.arange(200.0) + 1, "label": "Bird", "mid": BIRD,
        "score": np.round(random.beta(1, 3, 200), 3),
    })  # fmt: skip
    draws = [draw(found, 20, "stratified", seed) for seed in range(100)]
    assert {len(each) for each in draws} == {20}
    often = pd.concat(draws).groupby("start_s").agg(times=("score", "size"), probability=("probability", "first"))
    spread = np.sqrt(often.probability * (1 - often.probability) / 100)
    assert (np.abs(often.times / 100 - often.probability) < 5 * spread + 1e-9).all()
    assert draws[0].stratum.nunique() == STRATA
    assert sum(1 / draws[0].probability) == pytest.approx(200)  # the clips stand for all events
