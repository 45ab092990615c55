"""The plan: every chunk of every recording in one span, every span in one task."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import AudioInfo, Recording, recordings_of
from satpipe.pipeline.tagging.spans import TASK_SPANS, Span, group, spans_of
from satpipe.sat.model.config import CONFIGS, CUTS, SAMPLE_RATE_HZ, Cut, ModelConfig, get_config
from satpipe.sat.model.cutting import chunk_samples, count_chunks

CONFIG = get_config("SAT_T_2s")
DAY_FRAMES = 24 * 3600 * SAMPLE_RATE_HZ

configs = st.sampled_from(list(CONFIGS.values()))
cuts = st.sampled_from(CUTS)
lengths = st.integers(1, DAY_FRAMES) | st.builds(
    lambda chunks, more: max(1, 30_720 * chunks + more), st.integers(0, 3000), st.integers(-1, 1)
)
SPAN_S = 600.0
spans_s = st.floats(0.001, 2 * SPAN_S)
few_examples = settings(max_examples=100, deadline=None)


def recording(frames: int, *, exact_seek: bool = True, name: str = "a.wav") -> Recording:
    info = AudioInfo(frames, SAMPLE_RATE_HZ, 1, exact_seek, problem="")
    return Recording(name, Source(name, f"/{name}", 2 * frames, 0), None, info)


@few_examples
@given(config=configs, cut=cuts, frames=lengths, span_s=spans_s)
def test_spans_hold_each_chunk_once(config: ModelConfig, cut: Cut, frames: int, span_s: float) -> None:
    spans = spans_of(recording(frames), config, cut, span_s)
    chunks = count_chunks(config, cut, frames)
    bounds = [(span.start_chunk, span.stop_chunk) for span in spans]
    assert bounds[0][0] == 0
    assert bounds[-1][1] is None
    assert bounds[-1][0] < chunks
    for (start, stop), (following, _) in pairwise(bounds):
        assert start < following == stop
    assert len({span.key for span in spans}) == len(spans)


@few_examples
@given(config=configs, cut=cuts, frames=lengths, span_s=spans_s)
def test_a_span_is_as_long_as_asked_for_or_one_chunk(config: ModelConfig, cut: Cut, frames: int, span_s: float) -> None:
    spans = spans_of(recording(frames), config, cut, span_s)
    durations_s = [span.duration_s(config, cut) for span in spans]
    assert sum(durations_s) == pytest.approx(frames / SAMPLE_RATE_HZ)
    assert max(durations_s) <= max(span_s, chunk_samples(config, cut) / SAMPLE_RATE_HZ) + 1e-9


@few_examples
@given(cut=cuts, frames=lengths, span_s=spans_s)
def test_a_recording_that_cannot_be_read_from_its_middle_stays_whole(cut: Cut, frames: int, span_s: float) -> None:
    whole = recording(frames, exact_seek=False)
    assert spans_of(whole, CONFIG, cut, span_s) == [Span(whole, 0, None)]


def test_a_day_becomes_spans_of_ten_minutes() -> None:
    spans = spans_of(recording(DAY_FRAMES), CONFIG, "gapless", SPAN_S)
    assert len(spans) == 145  # of 312 chunks, 599 s
    assert spans[1].duration_s(CONFIG, "gapless") == 599.04


def test_a_span_of_a_file_that_changed_has_another_key() -> None:
    before = recording(DAY_FRAMES)
    source = before.source
    others = [replace(source, size_bytes=1), replace(source, modified_ns=1)]
    keys = {Span(replace(before, source=other)).key for other in [source, *others]}
    assert len(keys | {Span(replace(before, name="b.wav")).key, Span(before, 1).key, Span(before, 0, 1).key}) == 6


@few_examples
@given(
    seconds=st.lists(st.integers(1, 1000), max_size=40),
    cut=cuts,
    span_s=st.floats(1, 600),
    task_s=st.floats(0.1, 1000),
)
def test_tasks_hold_each_span_once_and_in_order(seconds: list[int], cut: Cut, span_s: float, task_s: float) -> None:
    planned = [
        span
        for place, length in enumerate(seconds)
        for span in spans_of(recording(length * SAMPLE_RATE_HZ, name=str(place)), CONFIG, cut, span_s)
    ]
    tasks = list(group(planned, CONFIG, cut, task_s))
    assert [span for task in tasks for span in task] == planned
    lengths_s = [[span.duration_s(CONFIG, cut) for span in task] for task in tasks]
    assert all(len(task) == 1 or sum(task) <= task_s + 1e-6 for task in lengths_s)
    # A span was put into the next task because it did not fit any more.
    for task, following in pairwise(lengths_s):
        assert len(task) == TASK_SPANS or sum(task) + following[0] > task_s - 1e-6


def test_a_task_holds_so_many_recordings_and_no_more_however_short() -> None:
    planned = [Span(recording(160, name=str(place))) for place in range(2 * TASK_SPANS + 3)]
    tasks = list(group(planned, CONFIG, "gapless", 1e6))
    assert [len(task) for task in tasks] == [TASK_SPANS, TASK_SPANS, 3]
    assert [span for task in tasks for span in task] == planned


def test_no_spans_make_no_task() -> None:
    assert list(group([], CONFIG, "gapless", 60)) == []


@pytest.mark.parametrize(
    ("channels", "of_stereo", "of_mono"),
    [
        ("mix", [("day/a.wav", None)], [("day/a.wav", None)]),
        ("split", [("day/a.wav#ch1", 1), ("day/a.wav#ch2", 2)], [("day/a.wav", None)]),
        ("2", [("day/a.wav", 2)], [("day/a.wav", 2)]),  # that a mono file has no second is for the run to say
    ],
)
def test_the_channels_of_a_file_become_recordings(
    channels: str, of_stereo: list[tuple[str, int | None]], of_mono: list[tuple[str, int | None]]
) -> None:
    source = Source("day/a.wav", "/in/day/a.wav", 100, 0)
    for number, expected in ((2, of_stereo), (1, of_mono)):
        made = recordings_of(source, AudioInfo(16_000, 16_000, number, True, ""), channels)
        assert [(each.name, each.channel) for each in made] == expected
        assert all(each.source is source for each in made)
