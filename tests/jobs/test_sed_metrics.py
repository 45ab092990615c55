"""Counts and metrics on arrays equal those of sed_eval, which evaluates the same events clip by clip."""

import math
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.jobs.metrics import sed
from satpipe.jobs.metrics.arrays import mean
from satpipe.jobs.metrics.counts import Counts, class_rates, micro_rates, totals
from satpipe.jobs.metrics.sed import count_events, count_segments, load_sed_eval
from satpipe.jobs.metrics.sound_events import Events

TOLERANCE = 1e-9
CLIPS, LABELS = 3, 4
NAMES = ["dog", "cat", "bird", "rain"]
many_examples = settings(max_examples=100, deadline=None)

Row = tuple[int, int, float, float]


def rows(*events: Row) -> Events:
    """Return events from clip, class, onset and offset."""
    return Events.of(*zip(*events, strict=True)) if events else Events.of([], [], [], [])


def listed(events: Events, clip: int) -> list[dict[str, Any]]:
    """Return the events of a clip as sed_eval takes them."""
    return [
        {
            "event_label": NAMES[events.label[row]],
            "onset": float(events.onset_s[row]),
            "offset": float(events.offset_s[row]),
        }
        for row in np.flatnonzero(events.clip == clip)
    ]


def evaluated(metrics: Any, truth: Events, found: Events, clips: Any = range(CLIPS)) -> Any:
    """Return one of sed_eval's metric objects after its own evaluation of clips."""
    for clip in clips:
        metrics.evaluate(listed(truth, clip), listed(found, clip))
    return metrics


def results(metrics: Any) -> Any:
    """Return the results of one of sed_eval's metric objects, whose averages may be over no class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return metrics.results()


def segment_oracle(segment_s: float) -> Any:
    return load_sed_eval().sound_event.SegmentBasedMetrics(NAMES, time_resolution=segment_s)


def event_oracle(collar_s: float = 0.2, offset_fraction: float | None = 0.5) -> Any:
    return load_sed_eval().sound_event.EventBasedMetrics(
        NAMES,
        evaluate_offset=offset_fraction is not None,
        t_collar=collar_s,
        percentage_of_length=offset_fraction or 0.0,
    )


def flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}/{name}")
        else:
            yield f"{path}/{name}", float(value)


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Return the largest difference of two trees of figures: absolute below 1, relative above."""
    a, b = dict(flat(ours)), dict(flat(theirs))
    assert list(a) == list(b)
    largest = 0.0
    for name, value in a.items():
        if math.isnan(value) or math.isnan(b[name]):
            assert math.isnan(value), name
            assert math.isnan(b[name]), name
        else:
            largest = max(largest, abs(value - b[name]) / max(1.0, abs(b[name])))
    return largest


def zero_rule(class_wise: Mapping[str, Any]) -> tuple[float, float]:
    """Return the macro F1 and the macro error rate over classes with truth, from sed_eval's figures of each class."""
    true = [figures for figures in class_wise.values() if figures["count"]["Nref"] > 0]
    if not true:
        return math.nan, math.nan
    f1 = [figures["f_measure"]["f_measure"] for figures in true]
    f1 = [0.0 if math.isnan(value) else value for value in f1]
    return sum(f1) / len(true), sum(figures["error_rate"]["error_rate"] for figures in true) / len(true)


def by_functions(counts: Counts, weights: Any = None) -> dict[str, Any]:
    """Return what the functions on totals say, of the first resample, in sed_eval's places."""
    total = totals(counts, weights)
    classes, micro = class_rates(total), micro_rates(total)
    return {
        "overall": {
            "f_measure": micro.f1[0],
            "precision": micro.precision[0],
            "recall": micro.recall[0],
            "error_rate": micro.error_rate[0],
        },
        "class_wise": {
            name: {
                "f_measure": classes.f1[0, label],
                "precision": classes.precision[0, label],
                "recall": classes.recall[0, label],
                "error_rate": classes.error_rate[0, label],
                "Nref": classes.reference[0, label],
            }
            for label, name in enumerate(NAMES)
        },
        "macro": {
            "f_measure": mean(class_rates(total).f1)[0],
            "error_rate": mean(class_rates(total).error_rate)[0],
            "zero_f_measure": mean(class_rates(total).zero_f1)[0],
            "zero_error_rate": mean(class_rates(total).zero_error_rate)[0],
        },
    }


def by_sed_eval(metrics: Any) -> dict[str, Any]:
    """Return the same figures from one of sed_eval's objects."""
    theirs = results(metrics)
    zero_f1, zero_error_rate = zero_rule(theirs["class_wise"])
    return {
        "overall": {**theirs["overall"]["f_measure"], "error_rate": theirs["overall"]["error_rate"]["error_rate"]},
        "class_wise": {
            name: {
                **theirs["class_wise"][name]["f_measure"],
                "error_rate": theirs["class_wise"][name]["error_rate"]["error_rate"],
                "Nref": theirs["class_wise"][name]["count"]["Nref"],
            }
            for name in NAMES
        },
        "macro": {
            "f_measure": theirs["class_wise_average"]["f_measure"]["f_measure"],
            "error_rate": theirs["class_wise_average"]["error_rate"]["error_rate"],
            "zero_f_measure": zero_f1,
            "zero_error_rate": zero_error_rate,
        },
    }


def compare(counts: Counts, theirs: Any) -> None:
    """Check the counts and the metrics against one of sed_eval's objects after its own evaluation."""
    total, overall = totals(counts), theirs.overall
    for k, name in enumerate(NAMES):
        each = theirs.class_wise[name]
        assert (total.tp[0, k], total.fp[0, k], total.fn[0, k]) == (each["Ntp"], each["Nfp"], each["Nfn"])
        assert (each["Nref"], each["Nsys"]) == (each["Ntp"] + each["Nfn"], each["Ntp"] + each["Nfp"])
    tp, fp, fn = (float(values.sum()) for values in (total.tp, total.fp, total.fn))
    assert (tp, tp + fn, tp + fp) == (overall["Ntp"], overall["Nref"], overall["Nsys"])
    if "S" in overall:
        assert (fp, fn) == (overall["Nfp"], overall["Nfn"])
    errors = [overall[name] for name in (("S", "D", "I") if "S" in overall else ("Nsubs", "Nfn", "Nfp"))]
    assert [total.substitutions[0], total.deletions[0], total.insertions[0]] == errors
    assert counts.clips == theirs.evaluated_files
    assert difference(by_functions(counts), by_sed_eval(theirs)) <= TOLERANCE


def compare_segments(truth: Events, found: Events, segment_s: float) -> None:
    counts = count_segments(truth, found, clips=CLIPS, classes=LABELS, segment_s=segment_s)
    compare(counts, evaluated(segment_oracle(segment_s), truth, found))


def compare_events(truth: Events, found: Events, **options: Any) -> None:
    counts = count_events(truth, found, clips=CLIPS, classes=LABELS, **options)
    compare(counts, evaluated(event_oracle(**options), truth, found))


# Times that meet borders: multiples of a step, by product and by sum, the numbers next to them, and some anywhere.
def times_s(step_s: float) -> st.SearchStrategy[float]:
    multiples = st.integers(0, 6).map(lambda n: n * step_s)
    sums = st.integers(0, 6).map(lambda n: sum([step_s] * n))
    above = multiples.map(lambda time_s: float(np.nextafter(time_s, np.inf)))
    below = multiples.map(lambda time_s: max(0.0, float(np.nextafter(time_s, -np.inf))))
    return multiples | multiples | multiples | sums | above | below | st.floats(0, 6 * step_s)


def event_columns(step_s: float) -> st.SearchStrategy[Events]:
    time_s = times_s(step_s)
    row = st.builds(
        lambda clip, label, a, b: (clip, label, min(a, b), max(a, b)),
        st.sampled_from([0, 0, 0, 1, 2]),
        st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
        time_s,
        time_s,
    )
    some = st.lists(row, max_size=6) | st.lists(row, min_size=8, max_size=16)
    repeated = st.builds(
        lambda rows, again: [*rows, *(rows[n] for n in again if n < len(rows))],
        some,
        st.lists(st.integers(0, 15), max_size=3),
    )
    return repeated.map(lambda some: rows(*some))


STEPS_S = (0.1, 0.2, 0.3, 0.7, 1.0, 1.92, 2.0)
segment_cases = st.sampled_from(STEPS_S).flatmap(
    lambda step_s: st.tuples(
        event_columns(step_s),
        event_columns(step_s),
        st.just(step_s),
    )
)
event_cases = st.sampled_from(STEPS_S).flatmap(
    lambda step_s: st.tuples(
        event_columns(step_s),
        event_columns(step_s),
        st.fixed_dictionaries(
            {
                "collar_s": st.sampled_from([step_s, 2 * step_s, step_s / 2]),
                "offset_fraction": st.sampled_from([None, None, None, 0.5, 0.2, 0.0, 1.0]),
            }
        ),
    )
)


@pytest.mark.slow
@many_examples
@given(segment_cases)
def test_segments_equal_sed_eval(case: Any) -> None:
    compare_segments(*case)


@pytest.mark.slow
@many_examples
@given(event_cases)
def test_events_equal_sed_eval(case: Any) -> None:
    truth, found, options = case
    compare_events(truth, found, **options)


@settings(max_examples=50, deadline=None)
@given(event_columns(0.5), event_columns(0.5), st.lists(st.integers(0, 2), min_size=CLIPS, max_size=CLIPS))
def test_weighted_totals_are_those_of_a_list_with_clips_repeated(
    truth: Events, found: Events, times: list[int]
) -> None:
    again = np.repeat(np.arange(CLIPS), times)  # the resample: clips in order, each as often as it was drawn
    weights = np.array([times, [1] * CLIPS])
    size: dict[str, Any] = {"clips": CLIPS, "classes": LABELS}
    segments = count_segments(truth, found, **size, segment_s=0.5)
    theirs = evaluated(segment_oracle(0.5), truth, found, again)
    assert difference(by_functions(segments, weights), by_sed_eval(theirs)) <= TOLERANCE
    events = count_events(truth, found, **size, offset_fraction=None)
    theirs = evaluated(event_oracle(offset_fraction=None), truth, found, again)
    assert difference(by_functions(events, weights), by_sed_eval(theirs)) <= TOLERANCE
    for counts in (segments, events):
        plain, weighted = totals(counts), totals(counts, weights)
        for name in plain.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(plain, name)[0], getattr(weighted, name)[1])
        assert weighted.tp.shape == (2, LABELS)
        assert weighted.substitutions.shape == (2,)
        found_n, true_n = (weighted.tp + weighted.fp).sum(1), (weighted.tp + weighted.fn).sum(1)
        np.testing.assert_array_equal(weighted.reference, true_n)
        # Every true one is right, replaced or deleted; every found one right, a replacement or inserted.
        both = weighted.tp.sum(1) + weighted.substitutions
        np.testing.assert_array_equal(both + weighted.deletions, true_n)
        np.testing.assert_array_equal(both + weighted.insertions, found_n)


def dense(rng: np.random.Generator, n: int, step_s: float) -> Events:
    """Return events of many to a collar, in no order."""
    onset_s = rng.integers(0, 40, n) * step_s
    length_s = rng.integers(0, 6, n) * step_s
    return Events.of(rng.integers(0, CLIPS, n), rng.integers(0, LABELS, n), onset_s, onset_s + length_s)


@pytest.mark.parametrize("block_pairs", [1, 50, sed.BLOCK_PAIRS])
@pytest.mark.parametrize("offset_fraction", [None, 0.5])
def test_dense_events_equal_sed_eval_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, block_pairs: int, offset_fraction: float | None
) -> None:
    monkeypatch.setattr(sed, "BLOCK_PAIRS", block_pairs)
    rng = np.random.default_rng(5)
    truth, found = dense(rng, 150, 0.1), dense(rng, 200, 0.1)
    compare_events(truth, found, offset_fraction=offset_fraction)
    compare_segments(truth, found, 0.3)


SEGMENT_EDGES: dict[str, tuple[list[Row], list[Row], float, tuple[int, int, int]]] = {
    # name: truth, found, segment, (tp, fp, fn) over all classes
    "touching a border from before": ([(0, 0, 0.0, 1.0)], [(0, 0, 1.0, 2.0)], 1.0, (0, 1, 1)),
    "reaching just over a border": ([(0, 0, 0.0, 1.0000001)], [(0, 0, 1.0, 2.0)], 1.0, (1, 0, 1)),
    "no length, on a border": ([(0, 0, 1.0, 1.0)], [], 1.0, (0, 0, 0)),
    "no length, within a segment": ([(0, 0, 1.5, 1.5)], [(0, 0, 1.0, 2.0)], 1.0, (1, 0, 0)),
    "a quotient just below its number": ([(0, 0, 0.3, 0.4)], [], 0.1, (0, 0, 2)),  # 0.3 / 0.1 = 2.9999999999999996
    "a quotient that is exact": ([(0, 0, 0.5, 0.6)], [], 0.1, (0, 0, 1)),
    "overlapping truth": ([(0, 0, 0.0, 2.0), (0, 0, 1.0, 3.0)], [(0, 0, 0.0, 3.0)], 1.0, (3, 0, 0)),
    "duplicates": ([(0, 0, 0.0, 2.0)] * 2, [(0, 0, 0.0, 1.0)] * 3, 1.0, (1, 0, 1)),
    "two events in one segment": ([(0, 0, 0.1, 0.2), (0, 0, 0.6, 0.7)], [(0, 0, 0.3, 0.4)], 1.0, (1, 0, 0)),
    "another clip": ([(0, 0, 0.0, 1.0)], [(1, 0, 0.0, 1.0)], 1.0, (0, 1, 1)),
    "another class": ([(0, 0, 0.0, 1.0)], [(0, 1, 0.0, 1.0)], 1.0, (0, 1, 1)),
    "no truth": ([], [(0, 0, 0.0, 1.5)], 1.0, (0, 2, 0)),
    "nothing found": ([(2, 3, 0.5, 1.5)], [], 1.0, (0, 0, 2)),
    "nothing at all": ([], [], 1.0, (0, 0, 0)),
}


@pytest.mark.parametrize(("truth", "found", "segment_s", "expected"), SEGMENT_EDGES.values(), ids=SEGMENT_EDGES)
def test_segment_edges(truth: list[Row], found: list[Row], segment_s: float, expected: tuple[int, int, int]) -> None:
    counts = count_segments(rows(*truth), rows(*found), clips=CLIPS, classes=LABELS, segment_s=segment_s)
    assert (counts.tp.sum(), counts.fp.sum(), counts.fn.sum()) == expected
    compare_segments(rows(*truth), rows(*found), segment_s)


EVENT_EDGES: dict[str, tuple[list[Row], list[Row], tuple[int, int, int, int]]] = {
    # name: truth, found, (tp, substitutions, deletions, insertions), by onset with a collar of 0.2 s
    "at the collar": ([(0, 0, 0.0, 1.0)], [(0, 0, 0.2, 1.0)], (1, 0, 0, 0)),
    "a difference just below the collar": ([(0, 0, 1.0, 2.0)], [(0, 0, 1.2, 2.0)], (1, 0, 0, 0)),
    "a difference just above it": ([(0, 0, 0.7, 2.0)], [(0, 0, 0.9, 2.0)], (0, 0, 1, 1)),
    # 0.28 - 0.08 is 0.2, though 0.28 - 0.2 is more than 0.08.
    "the difference decides, not the border": ([(0, 0, 0.28, 1.0)], [(0, 0, 0.08, 1.0)], (1, 0, 0, 0)),
    "no length": ([(0, 0, 1.0, 1.0)], [(0, 0, 1.1, 1.1)], (1, 0, 0, 0)),
    "duplicates count once each": ([(0, 0, 1.0, 2.0)] * 2, [(0, 0, 1.0, 2.0)] * 3, (2, 0, 0, 1)),
    "overlapping truth is not merged": ([(0, 0, 0.0, 2.0), (0, 0, 1.0, 3.0)], [(0, 0, 0.0, 3.0)], (1, 0, 1, 0)),
    "the larger matching, not the first": (
        [(0, 0, 1.2, 2.0), (0, 0, 1.0, 2.0)],
        [(0, 0, 1.1, 2.0), (0, 0, 1.4, 2.0)],
        (2, 0, 0, 0),
    ),
    "another class": ([(0, 0, 1.0, 2.0)], [(0, 1, 1.0, 2.0)], (0, 1, 0, 0)),
    "another clip": ([(0, 0, 1.0, 2.0)], [(1, 0, 1.0, 2.0)], (0, 0, 1, 1)),
    "a replacement serves once": ([(0, 0, 1.0, 2.0), (0, 1, 1.0, 2.0)], [(0, 2, 1.0, 2.0)], (0, 1, 1, 0)),
    # The first dog that was found takes the true one, so the bird can be replaced by the dog at 1.3 s, or not.
    "left over by the matching, near": (
        [(0, 0, 1.2, 2.0), (0, 2, 1.4, 2.0)],
        [(0, 0, 1.1, 2.0), (0, 0, 1.3, 2.0)],
        (1, 1, 0, 0),
    ),
    "left over by the matching, far": (
        [(0, 0, 1.2, 2.0), (0, 2, 1.4, 2.0)],
        [(0, 0, 1.3, 2.0), (0, 0, 1.1, 2.0)],
        (1, 0, 1, 1),
    ),
    # Each true event in turn takes the first that is left: in the other order, both would get one.
    "replacements are taken in turn": (
        [(0, 0, 1.1, 2.0), (0, 1, 1.0, 2.0)],
        [(0, 2, 1.0, 2.0), (0, 2, 1.3, 2.0)],
        (0, 1, 1, 1),
    ),
    "replacements are taken in turn, the other way": (
        [(0, 1, 1.0, 2.0), (0, 0, 1.1, 2.0)],
        [(0, 2, 1.0, 2.0), (0, 2, 1.3, 2.0)],
        (0, 2, 0, 0),
    ),
    "no truth": ([], [(0, 0, 0.0, 1.5)], (0, 0, 0, 1)),
    "nothing found": ([(2, 3, 0.5, 1.5)], [], (0, 0, 1, 0)),
    "nothing at all": ([], [], (0, 0, 0, 0)),
}


@pytest.mark.parametrize(("truth", "found", "expected"), EVENT_EDGES.values(), ids=EVENT_EDGES)
def test_event_edges(truth: list[Row], found: list[Row], expected: tuple[int, int, int, int]) -> None:
    counts = count_events(rows(*truth), rows(*found), clips=CLIPS, classes=LABELS, offset_fraction=None)
    kinds = (counts.tp, counts.substitutions, counts.deletions, counts.insertions)
    assert tuple(kind.sum() for kind in kinds) == expected
    compare_events(rows(*truth), rows(*found), offset_fraction=None)
    compare_events(rows(*truth), rows(*found))


def test_offsets_agree_within_the_collar_or_a_fraction_of_the_true_length() -> None:
    truth = rows((0, 0, 0.0, 2.0), (1, 0, 0.0, 0.1))
    found = rows((0, 0, 0.0, 3.0), (1, 0, 0.0, 0.3))
    counts = count_events(truth, found, clips=CLIPS, classes=LABELS)
    np.testing.assert_array_equal(counts.tp, [1, 1])
    counts = count_events(truth, found, clips=CLIPS, classes=LABELS, offset_fraction=0.4)
    np.testing.assert_array_equal(counts.tp, [0, 1])
    # The fraction is of the true event's length, so truth and found cannot be exchanged.
    counts = count_events(found, truth, clips=CLIPS, classes=LABELS, offset_fraction=0.35)
    np.testing.assert_array_equal(counts.tp, [1, 1])


def test_the_rules_of_averaging_treat_each_kind_of_class_as_documented() -> None:
    # dog: right once, missed once. cat: true, never found. bird: found, never true. rain: neither.
    truth = rows((0, 0, 0.0, 1.0), (1, 0, 0.0, 1.0), (0, 1, 5.0, 6.0))
    found = rows((0, 0, 0.0, 1.0), (0, 2, 3.0, 4.0))
    total = totals(count_events(truth, found, clips=CLIPS, classes=LABELS))
    rates = class_rates(total)
    np.testing.assert_allclose(rates.f1[0], [2 / 3, math.nan, math.nan, math.nan])
    np.testing.assert_allclose(rates.precision[0], [1, math.nan, 0, math.nan])
    np.testing.assert_allclose(rates.recall[0], [0.5, 0, math.nan, math.nan])
    np.testing.assert_allclose(rates.error_rate[0], [0.5, 1, 1 / np.spacing(1), 0])
    np.testing.assert_array_equal(rates.reference[0], [2, 1, 0, 0])
    assert mean(class_rates(total).f1)[0] == pytest.approx(2 / 3)
    assert mean(class_rates(total).zero_f1)[0] == pytest.approx(1 / 3)
    assert mean(class_rates(total).zero_error_rate)[0] == pytest.approx(0.75)
    assert mean(class_rates(total).error_rate)[0] > 1e15
    # Found at another place: the class is now one whose F1 is zero by either rule.
    total = totals(count_events(truth, rows((0, 0, 0.0, 1.0), (0, 1, 0.0, 1.0)), clips=CLIPS, classes=LABELS))
    assert mean(class_rates(total).f1)[0] == mean(class_rates(total).zero_f1)[0] == pytest.approx(1 / 3)
    assert mean(class_rates(total).zero_error_rate)[0] == pytest.approx((0.5 + 2) / 2)
    assert mean(class_rates(total).error_rate)[0] == pytest.approx((0.5 + 2) / 4)
    # No truth: no macro figure by the zero rule.
    total = totals(count_events(rows(), found, clips=CLIPS, classes=LABELS))
    assert np.isnan(
        [
            mean(class_rates(total).f1)[0],
            mean(class_rates(total).zero_f1)[0],
            mean(class_rates(total).zero_error_rate)[0],
        ]
    ).all()


def test_a_day_in_fine_segments_needs_little_memory() -> None:
    day_s = 86_400.0
    rng = np.random.default_rng(0)
    onset_s = rng.uniform(0, day_s - 3600, 2000)
    truth = Events.of(np.zeros(2000), rng.integers(0, LABELS, 2000), onset_s, onset_s + rng.uniform(0, 3600, 2000))
    found = Events.of(np.zeros(2000), truth.label, onset_s + 0.1, truth.offset_s)
    tracemalloc.start()
    counts = count_segments(truth, found, clips=1, classes=LABELS, segment_s=0.01)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts.tp.sum() > 8_000_000
    assert peak < 10e6
    tp = counts.tp.sum() + counts.substitutions.sum() + counts.deletions.sum()
    assert tp == counts.reference.sum()


def test_long_chains_of_events_are_matched() -> None:
    # Each event found agrees with the true ones before and after it and is given the one before, until the very first
    # comes, last in the list, which agrees with one alone: all others have to change.
    n = 5000
    true_s = 1 + 0.3 * np.arange(n)
    found_s = np.append(true_s[:-1] + 0.15, 0.85)
    truth, found = (Events.of(np.zeros(n), np.zeros(n), times_s, times_s) for times_s in (true_s, found_s))
    counts = count_events(truth, found, clips=1, classes=1, offset_fraction=None)
    assert counts.tp.sum() == n


@pytest.mark.parametrize(
    ("event", "match"),
    [
        ((0, 0, -0.1, 1.0), "an event from -0.1"),
        ((0, 0, 1.0, 0.5), "an event from 1.0 to 0.5"),
        ((0, 0, 0.0, math.inf), "to inf"),
        ((0, 0, math.nan, 1.0), "from nan"),
        ((CLIPS, 0, 0.0, 1.0), "clip 3"),
        ((-1, 0, 0.0, 1.0), "clip -1"),
        ((0, LABELS, 0.0, 1.0), "class 4"),
    ],
)
def test_events_that_make_no_sense_are_refused(event: Row, match: str) -> None:
    for truth, found in ((rows(event), rows()), (rows(), rows(event))):
        with pytest.raises(ValueError, match=match):
            count_segments(truth, found, clips=CLIPS, classes=LABELS, segment_s=1.0)
        with pytest.raises(ValueError, match=match):
            count_events(truth, found, clips=CLIPS, classes=LABELS)


def test_options_that_make_no_sense_are_refused() -> None:
    size: dict[str, Any] = {"clips": CLIPS, "classes": LABELS}
    with pytest.raises(ValueError, match="segments of 0"):
        count_segments(rows(), rows(), **size, segment_s=0.0)
    with pytest.raises(ValueError, match="collar of 0"):
        count_events(rows(), rows(), **size, collar_s=0.0)
    with pytest.raises(ValueError, match="offset fraction 1.1"):
        count_events(rows(), rows(), **size, offset_fraction=1.1)
    counts = count_events(rows(), rows(), **size)
    with pytest.raises(ValueError, match="weights of shape"):
        totals(counts, np.ones(CLIPS))


def test_importing_the_counts_imports_no_sed_eval() -> None:
    check = "import sys, satpipe.jobs.metrics.sed; sys.exit('sed_eval' in sys.modules or 'dcase_util' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", check], check=False).returncode == 0
