"""Deployments: files that follow each other are read and tagged as one long recording."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from audio import Samples, noise, probed, recording_of, shorten, write
from helpers import assert_same_scores, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings.decode import Reader
from satpipe.pipeline.recordings.deployments import Candidate, Deployment, NotJoined, file_rows, join, split
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import AudioInfo, Recording
from satpipe.pipeline.tagging.spans import Span, narrow, spans_of
from satpipe.sat.model.config import CUTS, Cut
from tagged_spans import SMALL, scores_of, tag_task, tagged, tagger

pytestmark = pytest.mark.usefixtures("one_thread")

START = datetime(2025, 5, 10, 3, 20, tzinfo=UTC)


def candidate(path: Path, time: datetime = START, recorder: str = "") -> Candidate:
    return Candidate(recording_of(path).source, probed(path), recorder, time)


def deployment(*paths: Path) -> Recording:
    """Files that follow each other without a break, joined."""
    candidates, time = [], START
    for path in paths:
        candidates.append(candidate(path, time))
        time = candidates[-1].end
    [source], not_joined = join(candidates, 0.01)
    assert not_joined == NotJoined()
    if isinstance(source, Deployment):
        return Recording(source.recording, source, None, source.info)
    return recording_of(paths[0])


def pieces(
    folder: Path, samples: Samples, bounds: list[int], rate_hz: int, name: str = "{}.wav", **options: str
) -> list[Path]:
    """A recording, cut into files at some samples."""
    folder.mkdir(exist_ok=True)
    parts = np.split(samples, bounds)
    return [write(folder / name.format(n), part, rate_hz, **options) for n, part in enumerate(parts)]


def read(recording: Recording, start: int = 0) -> tuple[Samples, Reader]:
    reader = Reader(recording.source.path, recording.info, recording.channel, start)
    return np.concatenate([np.empty(0, np.float32), *reader.blocks()]), reader


@settings(max_examples=25, deadline=None)
@given(
    bounds=st.lists(st.integers(1, 99_999), unique=True, max_size=5).map(sorted),
    rate_hz=st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000, 96_000]),
    start=st.integers(0, 15_000),
)
def test_the_samples_are_those_of_one_file_at_every_rate_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, bounds: list[int], rate_hz: int, start: int
) -> None:
    folder, samples = tmp_path_factory.mktemp("cut"), noise(100_000)
    whole = write(folder / "whole.wav", samples, rate_hz, subtype="FLOAT")
    joined = deployment(*pieces(folder / "a", samples, bounds, rate_hz, subtype="FLOAT"))
    expected = np.concatenate([np.empty(0, np.float32), *Reader(str(whole), probed(whole)).blocks()])
    assert joined.info.samples == probed(whole).samples == len(expected)
    found, reader = read(joined, start)
    np.testing.assert_array_equal(found, expected[start:])
    assert (reader.frames_read, reader.broken_s, reader.invalid_s) == (100_000, None, None)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Recording]:
    """33 s at 44.1 kHz, whole and in four files of FLAC, one of them shorter than a chunk."""
    folder = tmp_path_factory.mktemp("night")
    samples = sound(33 * 44_100).numpy() / 4
    whole = write(folder / "whole.flac", samples, 44_100)
    bounds = [500_001, 510_007, 1_100_003]
    return recording_of(whole), deployment(*pieces(folder, samples, bounds, 44_100, "{}.flac"))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("span_s", [4.1, 100.0])
def test_memory_goes_on_from_file_to_file_wherever_spans_begin(
    night: tuple[Recording, Recording], cut: Cut, span_s: float
) -> None:
    whole, joined = night
    expected, _ = tagged(whole, cut)
    spans = [narrow(span, SMALL, cut) for span in spans_of(joined, SMALL, cut, span_s)]
    result = tag_task(spans, tagger(cut))
    assert {outcome.status for outcome in result.outcomes} == {"ok"}
    assert result.outcomes[-1].frames == whole.info.frames
    scores = torch.cat([scores_of(result, place) for place in range(len(spans))])
    assert_same_scores(scores, expected, tolerance=1e-6)


def test_a_worker_is_told_only_of_the_files_that_it_reads(night: tuple[Recording, Recording]) -> None:
    spans = [narrow(span, SMALL, "gapless") for span in spans_of(night[1], SMALL, "gapless", 4.0)]
    named = [[part.source.recording for part in span.recording.info.parts] for span in spans]
    assert named[0] == ["0.flac"]
    assert {"0.flac", "1.flac", "2.flac"} <= set(named[3])
    assert named[-1] == ["2.flac", "3.flac"]  # of the former, what the memory goes back to
    assert [span.key for span in spans] == [span.key for span in spans_of(night[1], SMALL, "gapless", 4.0)]
    assert not any(isinstance(span.recording.source, Deployment) for span in spans)


def test_channels_are_joined_each_by_itself(tmp_path: Path) -> None:
    samples = noise(50_000, channels=2)
    joined = deployment(*pieces(tmp_path, samples, [20_001], 16_000, subtype="FLOAT"))
    for channel in (1, 2):
        found, _ = read(replace(joined, channel=channel))
        np.testing.assert_array_equal(found, samples[:, channel - 1])


def test_the_table_says_which_file_and_second_it_is(night: tuple[Recording, Recording]) -> None:
    rows = file_rows(night[1].info)
    assert rows
    assert [row["file"] for row in rows] == ["0.flac", "1.flac", "2.flac", "3.flac"]
    assert [row["start_s"] * 44_100 for row in rows] == pytest.approx([0, 500_001, 510_007, 1_100_003])
    assert night[1].source.size_bytes == sum(row["size_bytes"] for row in rows)
    assert file_rows(night[0].info) is None


# What follows what


def info(seconds: float = 60.0, rate_hz: int = 16_000, channels: int = 1, **other: object) -> AudioInfo:
    return replace(AudioInfo(int(seconds * rate_hz), rate_hz, channels, True, ""), **other)  # type: ignore[arg-type]


def chain(*files: tuple[str, float, AudioInfo], gap_s: float = 2.0) -> tuple[list[list[str]], NotJoined]:
    """Which files become one, of (name, start in seconds, header); the recorder is the first letter of the name."""
    candidates = [
        Candidate(Source(name, name, 1, n), header, name[0], START + timedelta(seconds=start_s))
        for n, (name, start_s, header) in enumerate(files)
    ]
    sources, not_joined = join(candidates, gap_s)
    names = [
        [part.source.recording for part in s.info.parts] if isinstance(s, Deployment) else [s.recording]
        for s in sources
    ]
    return names, not_joined


def test_files_are_joined_where_one_begins_as_the_one_before_ended() -> None:
    files = [("a3", 121.9, info()), ("b1", 60, info()), ("a1", 0, info()), ("a2", 61.9, info()), ("a4", 300, info())]
    assert chain(*files) == ([["a1", "a2", "a3"], ["a4"], ["b1"]], NotJoined())
    assert chain(*files, gap_s=1.0)[0] == [["a1"], ["a2", "a3"], ["a4"], ["b1"]]


def test_files_that_overlap_are_not_joined_and_said() -> None:
    names, not_joined = chain(("a1", 0, info()), ("a2", 59, info()), ("a3", 100, info()))
    assert names == [["a1", "a2"], ["a3"]]
    assert not_joined.overlaps == [("a2", "a3", pytest.approx(19))]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"rate_hz": 48_000}, "16,000 Hz, 1 channels and 48,000 Hz, 1 channels"),
        ({"channels": 2}, "16,000 Hz, 1 channels and 16,000 Hz, 2 channels"),
        ({"exact_seek": False}, "they cannot be read exactly from the middle"),
    ],
)
def test_files_of_another_kind_are_not_joined_and_said(other: dict[str, int], reason: str) -> None:
    names, not_joined = chain(("a1", 0, info()), ("a2", 60, info(**other)), ("a3", 120, info(**other)))  # type: ignore[arg-type]
    assert names == ([["a1"], ["a2"], ["a3"]] if "exact_seek" in other else [["a1"], ["a2", "a3"]])
    assert not_joined.mismatches[0] == ("a1", "a2", reason)


# What is broken


def test_a_file_that_is_known_to_be_cut_off_is_the_last_of_its_deployment(tmp_path: Path) -> None:
    paths = pieces(tmp_path, noise(90_000), [30_000, 60_000], 16_000)
    shorten(paths[1], 0.5)
    times = [START, START + timedelta(seconds=1.875), START + timedelta(seconds=3.75)]
    sources, _ = join([candidate(path, time) for path, time in zip(paths, times, strict=True)], 1.0)
    assert [source.recording for source in sources] == ["0.wav", "2.wav"]
    assert isinstance(sources[0], Deployment)
    assert sources[0].info.problem.startswith("1.wav: the header announces")
    _, outcome = tagged(Recording("0.wav", sources[0], None, sources[0].info))
    assert (outcome.status, outcome.broken) == ("truncated", False)
    assert outcome.reason.endswith(f"it ends at {sources[0].info.duration_s:.3f} s")
    assert outcome.frames == 30_000 + 14_989


def test_a_break_is_told_with_file_and_second_and_nothing_is_read_behind_it(tmp_path: Path) -> None:
    paths = pieces(tmp_path, sound(300_000).numpy() / 4, [100_001, 120_001], 16_000, "{}.flac")
    joined = deployment(*paths)
    shorten(paths[1], 0.6)
    _, outcome = tagged(joined)
    assert (outcome.status, outcome.broken, outcome.file) == ("truncated", True, "1.flac")
    inside_s = (outcome.frames - 100_001) / 16_000
    assert 0 < inside_s < 1.25
    assert f"of 18.750 s, {inside_s:.3f} s of 1.flac" in outcome.reason
    [first, second] = split(joined.info, "1.flac")
    assert [part.source.recording for part in first[1].parts] == ["0.flac", "1.flac"]
    assert (second[0].recording, second[1].parts, second[1].frames) == ("2.flac", (), 179_999)
    assert split(joined.info, "2.flac")[0][1].frames == 300_000

    paths[2].unlink()
    paths[1].write_bytes(b"")
    _, outcome = tagged(joined)
    assert (outcome.file, outcome.frames) == ("1.flac", 100_001)
    assert "6.250 s of 18.750 s, 0.000 s of 1.flac: " in outcome.reason
    result = tag_task([Span(joined, 8, None)], tagger())  # begins in the last file, which is not there any more
    assert result.outcomes[0].file == "2.flac"
    assert "No such file" in result.outcomes[0].reason
    assert result.outcomes[0].chunks == 0


def test_a_bad_sample_is_told_in_time_of_its_file(tmp_path: Path) -> None:
    samples = noise(90_000)
    samples[70_000] = np.nan
    _, outcome = tagged(deployment(*pieces(tmp_path, samples, [30_000], 16_000, subtype="FLOAT")))
    assert outcome.status == "invalid samples"
    assert "the first at 4.375 s, 2.500 s of 1.wav: treated as silence" in outcome.reason


def test_a_file_that_grew_since_it_was_looked_at_is_a_break(tmp_path: Path) -> None:
    paths = pieces(tmp_path, noise(90_000), [30_000], 16_000)
    joined = deployment(*paths)
    write(paths[0], noise(40_000))
    _, outcome = tagged(joined)
    assert (outcome.broken, outcome.file) == (True, "0.wav")
