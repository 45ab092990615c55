"""The plan: every chunk of every recording in one span, every span in one task."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import AudioInfo, Recording, recordings_of
from satpipe.pipeline.tagging.planner import Planner
from satpipe.pipeline.tagging.spans import SPAN_S, TASK_SPANS, Span, fair_span_s, group, spans_of
from satpipe.sat.model.config import CONFIGS, CUTS, SAMPLE_RATE_HZ, Cut, ModelConfig, get_config
from satpipe.sat.model.cutting import chunk_samples, count_chunks

CONFIG = get_config("SAT_T_2s")
DAY_FRAMES = 24 * 3600 * SAMPLE_RATE_HZ

configs = st.sampled_from(list(CONFIGS.values()))
cuts = st.sampled_from(CUTS)
lengths = st.integers(1, DAY_FRAMES) | st.builds(
    lambda chunks, more: max(1, 30_720 * chunks + more), st.integers(0, 3000), st.integers(-1, 1)
)
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


def test_a_day_becomes_equal_spans_of_ten_minutes() -> None:
    spans = spans_of(recording(DAY_FRAMES), CONFIG, "gapless", SPAN_S)
    assert len(spans) == 145
    assert {span.stop_chunk - span.start_chunk for span in spans[:-1] if span.stop_chunk} == {310, 311}


@few_examples
@given(config=configs, cut=cuts, frames=lengths, before_s=spans_s, span_s=spans_s, which=st.integers(0, 2**12 - 1))
def test_tagged_spans_are_kept_however_the_rest_is_cut(
    config: ModelConfig, cut: Cut, frames: int, before_s: float, span_s: float, which: int
) -> None:
    before = spans_of(recording(frames), config, cut, before_s)
    tagged = {(span.start_chunk, span.stop_chunk) for n, span in enumerate(before) if which >> n % 12 & 1}
    bounds = [(span.start_chunk, span.stop_chunk) for span in spans_of(recording(frames), config, cut, span_s, tagged)]
    assert tagged <= set(bounds)
    assert (bounds[0][0], bounds[-1][1]) == (0, None)
    assert all(stop == following for (_, stop), (following, _) in pairwise(bounds))


@pytest.mark.parametrize(
    ("minutes", "workers", "spans"),
    [(9, 2, 1), (11, 2, 2), (30, 2, 2), (60, 2, 2), (60, 4, 4), (60, 7, 6), (1440, 2, 38), (1440, 64, 64)],
)
def test_workers_get_equal_parts_that_are_warmed_up_for_one_percent(minutes: int, workers: int, spans: int) -> None:
    planner = Planner(CONFIG, "gapless", None, ())
    planned = planner.add(long := recording(minutes * 60 * SAMPLE_RATE_HZ), workers, whole=False)
    assert len(planned) == spans
    lengths_s = [span.duration_s(CONFIG, "gapless") for span in planned]
    assert max(lengths_s) - min(lengths_s) < 3 * CONFIG.chunk_samples / SAMPLE_RATE_HZ
    if spans % workers == 0 and len(planner.tasks) > 1:
        assert [len(task) for task in planner.tasks] == [1] * spans
    # Another number of workers cuts what remains.
    again = Planner(CONFIG, "gapless", None, [span.key for span in planned[:1]])
    more = again.add(long, 3 * workers, whole=False)
    assert more[0] == planned[0]
    assert planned[0] not in [span for task in again.tasks for span in task]


def test_a_tagger_without_memory_has_nothing_to_warm_up() -> None:
    alone = CONFIG.without_memory()
    assert fair_span_s(recording(DAY_FRAMES), alone, "gapless", 2) == pytest.approx(SPAN_S, rel=0.01)


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
