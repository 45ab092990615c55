"""One unit of work: the scores of the recordings in it, wherever they are cut and whatever is beside them."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import soxr
import torch
from audio import recording_of, shorten, write
from helpers import assert_same_scores, model_by_rule, sound, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_equal, assert_scores_of, exact_scores
from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.recordings.resample import QUALITY
from satpipe.pipeline.tables.schemas import STATUSES
from satpipe.pipeline.tagging import tag_spans as tag
from satpipe.pipeline.tagging import worker
from satpipe.pipeline.tagging.spans import Span, spans_of
from satpipe.pipeline.tagging.worker import WorkerOptions, load_tagger
from satpipe.sat.model.config import CENTRE_SAMPLES, CUTS, PATCH_SAMPLES, SAMPLE_RATE_HZ, Cut
from satpipe.sat.model.cutting import chunk_samples, count_chunks
from satpipe.sat.weights.checkpoint import Checkpoint
from tagged_spans import SMALL, scores_of, tag_task, tagged, tagger
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_thread")

SECONDS = 33  # 17.2 gapless chunks, 16.5 in the script cut
SOURCES = {"16 kHz": (16_000, 1), "44.1 kHz stereo": (44_100, 2), "48 kHz": (48_000, 1)}


WAVEFORM = sound(200_000) / 4  # of the kind that the recordings below have


@lru_cache(maxsize=4)
def rounding_of(waveform: Tensor, cut: Cut) -> float:
    """By how much rounding may change the scores of a waveform."""
    return exact_scores(tagger(cut).model, waveform, cut)[1]


@pytest.fixture(scope="module", params=SOURCES)
def long(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Tensor]:
    """A recording, and its waveform at 16 kHz by another way."""
    rate_hz, channels = SOURCES[request.param]
    heard = np.stack([sound(SECONDS * rate_hz, seed=seed).numpy() for seed in range(channels)], axis=1) / 4
    path = write(tmp_path_factory.mktemp("long") / "a.wav", heard, rate_hz, subtype="FLOAT")
    samples = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1)
    return recording_of(path), torch.from_numpy(soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, quality=QUALITY))


@pytest.mark.parametrize("cut", CUTS)
def test_the_scores_are_those_of_streaming_the_recording(long: tuple[Recording, Tensor], cut: Cut) -> None:
    recording, waveform = long
    expected = stream(tagger(cut).model, waveform, cut)
    scores, outcome = tagged(recording, cut)
    assert (outcome.status, outcome.broken, outcome.frames) == ("ok", False, recording.info.frames)
    assert expected.std(0).mean() > 0.01  # or equal scores would say nothing
    assert_scores_of(tagger(cut).model, waveform, scores, cut)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("span_s", [2.0, 4.1, 7.0, 13.0, 20.0])
def test_the_scores_do_not_depend_on_where_the_recording_is_cut(
    long: tuple[Recording, Tensor], cut: Cut, span_s: float
) -> None:
    recording, waveform = long
    whole, _ = tagged(recording, cut)
    within = rounding_of(waveform, cut)
    spans = spans_of(recording, SMALL, cut, span_s)
    assert len(spans) > 1
    result = tag_task(spans, tagger(cut))
    assert [outcome.key for outcome in result.outcomes] == [span.key for span in spans]
    assert result.table["chunk"].to_pylist() == list(range(len(whole)))
    assert_equal(torch.cat([scores_of(result, place) for place in range(len(spans))]), whole, within)
    for place, span in reversed(list(enumerate(spans))):  # each in a unit of its own, the last one first
        assert_equal(scores_of(tag_task([span], tagger(cut))), scores_of(result, place), within)


@settings(max_examples=25, deadline=None)
@given(cut=st.sampled_from(CUTS), bounds=st.sets(st.integers(1, 8)), samples=st.integers(1, 9 * 30_720))
def test_the_scores_do_not_depend_on_where_a_recording_of_any_length_is_cut(
    tmp_path_factory: pytest.TempPathFactory, cut: Cut, bounds: set[int], samples: int
) -> None:
    waveform = sound(samples) / 4
    path = write(tmp_path_factory.mktemp("any") / "a.wav", waveform.numpy(), subtype="FLOAT")
    recording = recording_of(path)
    chunks = count_chunks(SMALL, cut, samples)
    starts = [0, *sorted(bound for bound in bounds if bound < chunks)]
    spans = [Span(recording, start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    result = tag_task(spans, tagger(cut))
    assert result.table["chunk"].to_pylist() == list(range(chunks))
    scores = torch.cat([scores_of(result, place) for place in range(len(spans))])
    assert_scores_of(tagger(cut).model, waveform, scores, cut)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "beyond",
    [-CENTRE_SAMPLES, -1, 0, 1, 100, CENTRE_SAMPLES - 1, CENTRE_SAMPLES, CENTRE_SAMPLES + 1, PATCH_SAMPLES],
)
def test_a_recording_may_end_anywhere_near_the_end_of_a_chunk_or_span(tmp_path: Path, cut: Cut, beyond: int) -> None:
    border = 5 * chunk_samples(SMALL, cut)
    waveform = sound(border + beyond) / 4
    recording = recording_of(write(tmp_path / "a.wav", waveform.numpy(), subtype="FLOAT"))
    expected, within = exact_scores(tagger(cut).model, waveform, cut)
    assert len(expected) == (5 if beyond <= 0 else 6)
    assert_same_scores(tagged(recording, cut)[0], expected, within)
    last = 4 if beyond <= 0 else 5
    result = tag_task([Span(recording, 0, last), Span(recording, last, None)], tagger(cut))
    assert [outcome.chunks for outcome in result.outcomes] == [last, 1]
    assert_same_scores(torch.cat([scores_of(result, 0), scores_of(result, 1)]), expected, within)
    assert {outcome.status for outcome in result.outcomes} == {"ok"}


@pytest.fixture
def mixed(tmp_path: Path) -> dict[str, Recording]:
    """Recordings good and bad, each of which `tag_task` can be given."""
    made = {}

    def add(name: str, waveform: Tensor, **options: str) -> Path:
        path = write(tmp_path / name, waveform.numpy(), **options)
        made[name] = recording_of(path)
        return path

    add("good.wav", sound(100_000, seed=1) / 4)
    add("gone.wav", sound(50_000, seed=2) / 4).unlink()
    add("other.flac", sound(70_000, seed=3) / 4)
    shorten(add("broken.flac", sound(200_000, seed=4) / 4), 0.6)
    add("text.wav", sound(50_000, seed=5) / 4).write_text("not any more\n" * 100)
    nan = sound(90_000, seed=6) / 4
    nan[40_000:40_010] = torch.nan
    add("nan.wav", nan, subtype="FLOAT")
    add("short.wav", sound(PATCH_SAMPLES - 1, seed=7) / 4)
    shorten(write(tmp_path / "cut.wav", (sound(100_000, seed=8) / 4).numpy()), 0.5)
    made["cut.wav"] = recording_of(tmp_path / "cut.wav")
    add("last.wav", sound(80_000, seed=9) / 4)
    return made


def test_a_bad_recording_is_an_outcome_with_a_status_and_a_reason(mixed: dict[str, Recording]) -> None:
    outcomes = dict(zip(mixed, tag_task(list(map(Span, mixed.values())), tagger()).outcomes, strict=True))
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "good.wav": "ok",
        "gone.wav": "unreadable",
        "other.flac": "ok",
        "broken.flac": "truncated",
        "text.wav": "unreadable",
        "nan.wav": "invalid samples",
        "short.wav": "short",
        "cut.wav": "truncated",
        "last.wav": "ok",
    }
    reasons = {name: outcome.reason for name, outcome in outcomes.items()}
    assert reasons["good.wav"] == ""
    assert "No such file" in reasons["gone.wav"]
    assert reasons["broken.flac"].endswith("s of 12.500 s")
    assert "Format not recognised" in reasons["text.wav"]
    assert "the first at 2.500 s" in reasons["nan.wav"]
    assert "0.160 s is shorter than one patch (0.16 s)" in reasons["short.wav"]
    assert "100,022 bytes more" in reasons["cut.wav"]
    broken = {name for name, outcome in outcomes.items() if outcome.broken}
    assert broken == {"gone.wav", "broken.flac", "text.wav"}
    assert {outcome.status for outcome in outcomes.values()} < STATUSES.keys()
    assert outcomes["gone.wav"].chunks == outcomes["text.wav"].chunks == 0
    assert outcomes["short.wav"].chunks == 1


@pytest.mark.parametrize("batch_chunks", [1, 2, 5, 32])
def test_the_scores_of_a_recording_do_not_depend_on_what_else_is_in_the_unit(
    mixed: dict[str, Recording], batch_chunks: int
) -> None:
    for recordings in (list(mixed.values()), list(mixed.values())[::-1]):
        result = tag_task(list(map(Span, recordings)), tagger(batch_chunks=batch_chunks))
        for place, recording in enumerate(recordings):
            alone, outcome = tagged(recording)
            assert_equal(scores_of(result, place), alone, rounding_of(WAVEFORM, "gapless"))
            assert result.outcomes[place] == outcome


def test_what_was_read_before_a_break_is_tagged_as_if_there_were_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", sound(200_000).numpy() / 4)
    whole, _ = tagged(recording_of(path))
    scores, outcome = tagged(recording_of(shorten(path, 0.6)))
    assert outcome.frames in range(60_000, 180_000)
    assert len(scores) == outcome.chunks == count_chunks(SMALL, "gapless", outcome.frames) < len(whole)
    untouched = (outcome.frames - CENTRE_SAMPLES) // SMALL.chunk_samples  # those that the break does not reach
    assert untouched > 0
    assert_same_scores(scores[:untouched], whole[:untouched], rounding_of(WAVEFORM, "gapless"))


def test_every_span_of_a_broken_recording_that_meets_the_break_says_so(mixed: dict[str, Recording]) -> None:
    recording = mixed["broken.flac"]
    whole, _ = tagged(recording)
    spans = spans_of(recording, SMALL, "gapless", 2.0)
    result = tag_task(spans, tagger())
    broken = [outcome.broken for outcome in result.outcomes]
    assert broken == sorted(broken)
    assert [outcome.status == "truncated" for outcome in result.outcomes] == broken
    assert 0 < sum(broken) < len(broken)
    before = torch.cat([scores_of(result, place) for place in range(broken.index(True))])
    assert_same_scores(before, whole[: len(before)], rounding_of(WAVEFORM, "gapless"))


def test_a_recording_of_which_nothing_can_be_decoded_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", sound(200_000).numpy() / 4)
    recording = recording_of(path)
    content = path.read_bytes()
    header = content[:4096].index(b"\xff\xf8")  # where the first frame starts
    path.write_bytes(content[:header] + bytes(len(content) - header))
    scores, outcome = tagged(recording)
    assert len(scores) == 0
    assert (outcome.status, outcome.broken) == ("unreadable", True)
    assert outcome.reason == "it has a header, but nothing can be decoded"


def test_bad_samples_count_as_silence(tmp_path: Path) -> None:
    waveform = sound(100_000) / 4
    waveform[30_000:60_000] = 0
    silent = recording_of(write(tmp_path / "silent.wav", waveform.numpy(), subtype="FLOAT"))
    waveform[30_000:60_000] = torch.inf
    bad = recording_of(write(tmp_path / "bad.wav", waveform.numpy(), subtype="FLOAT"))
    assert_same_scores(tagged(bad)[0], tagged(silent)[0], tolerance=0)


def test_a_channel_is_tagged_like_a_file_of_its_own(tmp_path: Path) -> None:
    left, right = (sound(100_000, seed=seed).numpy() / 4 for seed in (1, 2))
    both = write(tmp_path / "both.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    for channel, samples in ((1, left), (2, right), (None, (left + right) / 2)):
        alone = write(tmp_path / "alone.wav", samples, subtype="FLOAT")
        assert_same_scores(tagged(recording_of(both, channel))[0], tagged(recording_of(alone))[0], tolerance=0)


def test_a_unit_without_chunks_is_a_table_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sound(1000).numpy() / 4)
    recording = recording_of(path)
    path.unlink()
    result = tag_task([Span(recording)], tagger())
    assert (len(result.table), [outcome.chunks for outcome in result.outcomes]) == (0, [0])
    assert tag_task([], tagger()).outcomes == []


def test_a_worker_makes_another_model_of_the_same_weights_with_another_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "fetch", lambda shared: shared[0])
    monkeypatch.setattr(worker, "_loaded", {})
    checkpoint = Checkpoint.of(model_by_rule(SMALL))
    for config in (SMALL, SMALL.without_memory(), SMALL):
        options = WorkerOptions("", "abc", config, "gapless", "fp32", cuda=False)
        made = load_tagger(options, [replace(checkpoint, config=config)])
        assert made.model.config == config
        assert load_tagger(replace(options, folder="another"), []) is made


def test_scores_are_handed_over_a_few_at_a_time(mixed: dict[str, Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    unit = list(map(Span, mixed.values()))
    at_once = tag_task(unit, tagger())
    monkeypatch.setattr(tag, "STAGED_ROWS", 4)
    written: list[pa.Table] = []
    outcomes, _ = tag.tag_task(unit, tagger(), written.append)
    assert outcomes == at_once.outcomes
    assert {len(table) for table in written[:-1]} == {4}
    assert pa.concat_tables(written).combine_chunks().equals(at_once.table.combine_chunks())
