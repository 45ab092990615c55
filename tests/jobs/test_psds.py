"""PSDS: equal to psds-eval's whatever the events, quick on hundreds of classes, and of resampled clips."""

import json
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import exact_sets
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import PSDSEval, PSDSEvalError
from satpipe.jobs.benchmark import strong_set
from satpipe.jobs.metrics.bootstrap import resample
from satpipe.jobs.metrics.psds import (
    DECIMALS,
    PSDS1,
    PSDS1_NO_VARIANCE,
    PSDS2,
    SETTINGS,
    Detections,
    Psds,
    Setting,
    count,
)
from satpipe.jobs.metrics.psds_points import all_detections, detections_at, lowest_thresholds
from satpipe.jobs.metrics.sound_events import Events, detect
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CLASSES as OUTPUTS
from scipy.ndimage import median_filter

TOLERANCE = 1e-9
TICKS = 16  # on the grid of generated times
UNITS_S = (0.1, 1 / 3, 0.25, 1.92, 40.0)
RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)
STRICT = Setting("all of it", dtc=1, gtc=1, cttc=1, alpha_ct=1, alpha_st=0.5, max_efpr=1000)
NOTHING = Events.of([], [], [], [])
COLUMNS = ("clip", "label", "onset_s", "offset_s")

Row = tuple[int, int, int, int]  # clip, class, start and length in ticks


class Oracle:
    """What psds-eval makes of truth and found events."""

    def __init__(self, truth: Events, durations_s: Any, found: list[Events], setting: Setting) -> None:
        cttc = 0.3 if setting.cttc is None else setting.cttc  # it wants one
        self.evaluator = PSDSEval(setting.dtc, setting.gtc, cttc)
        self.evaluator.step_curve = remembering(self.evaluator.step_curve)  # it makes many that nobody looks at
        names = [f"clip {clip:03d}" for clip in range(len(durations_s))]
        metadata = pd.DataFrame({"filename": names, "duration": np.asarray(durations_s, float)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.evaluator.set_ground_truth(table(truth), metadata)
            for point, events in enumerate(found):
                self.evaluator.add_operating_point(table(events), info={"point": point})

    def psds(self, setting: Setting) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.evaluator.psds(setting.alpha_ct, setting.alpha_st, setting.max_efpr)

    def points(self) -> list[tuple[int, npt.NDArray[Any], Any, Any]]:
        """Counts [C, C + 1], ratios [C] and cross-trigger rates [C, C] of operating points that repeat no other."""
        table = self.evaluator.operating_points
        columns = (table[name] for name in ("point", "counts", "tpr", "ctr"))
        return [(int(point), counts[:-1], tpr, ctr) for point, counts, tpr, ctr in zip(*columns, strict=True)]


def remembering(curve: Any) -> Any:
    known: dict[bytes, Any] = {}

    def remembered(*arrays: npt.NDArray[Any]) -> Any:
        key = b"|".join(each.tobytes() for each in arrays)
        if key not in known:
            known[key] = curve(*arrays)
        return known[key]

    return remembered


def table(events: Events) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "filename": pd.Series([f"clip {clip:03d}" for clip in events.clip], dtype=object),
            "onset": events.onset_s,
            "offset": events.offset_s,
            "event_label": pd.Series([f"class {label:03d}" for label in events.label], dtype=object),
        }
    )


def assert_equal_to_psds_eval(
    truth: Events, durations_s: Any, found: list[Events], classes: int, chosen: tuple[Setting, ...] = SETTINGS
) -> float:
    """Compare figures, curves and counts; returns the largest difference of figures."""
    tally = count(truth, durations_s, classes, Detections.of(found), chosen)
    oracles: dict[Any, Oracle] = {}
    largest = 0.0
    for setting in chosen:
        criteria = (setting.dtc, setting.gtc, setting.cttc)
        if criteria not in oracles:
            oracles[criteria] = Oracle(truth, durations_s, found, setting)
        ours, theirs = tally.psds(setting), oracles[criteria].psds(setting)
        assert_same_counts(ours, oracles[criteria])
        if np.count_nonzero(ours.reference) == 1:  # psds-eval gets 0 from NaN * 0
            assert theirs.value == 0 <= ours.value <= 1
            continue
        assert abs(ours.value - theirs.value) <= TOLERANCE
        assert_same_curve((ours.efpr, ours.etpr), (theirs.plt.xp, theirs.plt.yp), setting.max_efpr)
        largest = max(largest, abs(ours.value - theirs.value))
    return largest


def by_class(psds: Psds, name: str) -> npt.NDArray[Any]:
    """Counts [K, T] of classes with the same operating points."""
    return np.asarray(getattr(psds, name).reshape(len(psds.reference), -1))


def assert_same_counts(ours: Psds, oracle: Oracle) -> None:
    has = np.flatnonzero(ours.reference)
    tps, fps, tprs, efprs = (by_class(ours, name) for name in ("tp", "fp", "class_tpr", "class_efpr"))
    for point, counts, tpr, ctr in oracle.points():
        tp, among = np.diag(counts), counts[:, :-1]
        assert tp.tolist() == tps[has, point].tolist()
        assert counts[:, -1].tolist() == fps[has, point].tolist()
        assert tpr == pytest.approx(tprs[has, point], abs=TOLERANCE)
        if ours.ct is not None:
            assert (among.sum(axis=1) - tp).tolist() == by_class(ours, "ct")[has, point].tolist()
        if ours.setting.alpha_ct and len(has) > 1:
            fpr = fps[has, point] * oracle_rate(oracle)
            efpr = fpr + ours.setting.alpha_ct * np.nanmean(ctr, axis=1)
            assert efpr == pytest.approx(efprs[has, point], rel=TOLERANCE, abs=TOLERANCE)


def oracle_rate(oracle: Oracle) -> float:
    return float(3600 / oracle.evaluator.metadata["duration"].sum())


def assert_same_curve(ours: tuple[Any, Any], theirs: tuple[Any, Any], stop: float) -> None:
    """Compare staircases between their steps: where steps fall together, the last bit of a rate differs."""
    edges = np.unique(np.concatenate([ours[0], theirs[0], [0, stop]]))
    edges = edges[edges <= stop]
    middle = ((edges[1:] + edges[:-1]) / 2)[np.diff(edges) > TOLERANCE]
    heights = [y[np.searchsorted(x, middle, side="right") - 1] for x, y in (ours, theirs)]
    assert heights[0] == pytest.approx(heights[1], abs=TOLERANCE)


def apart(rows: list[Row], unit_s: float) -> Events:
    """Events of rows, without those that overlap another of their class; the same one twice may stay."""
    kept: list[Row] = []
    for row in sorted(rows):
        clip, label, start, _ = row
        others = [other for other in kept if other[:2] == (clip, label)]
        if row in kept or all(start >= other[2] + other[3] for other in others):
            kept.append(row)
    clip, label, start, length = np.array(kept, int).reshape(-1, 4).T
    return Events.of(clip, label, start * unit_s, (start + length) * unit_s)


@st.composite
def systems(draw: st.DrawFn) -> tuple[Events, list[float], list[Events], int]:
    """Truth, lengths of clips, what was found at some operating points, and how many classes there are."""
    classes, clips = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    unit_s = draw(st.sampled_from(UNITS_S))
    where = st.tuples(st.integers(0, clips - 1), st.integers(0, classes - 1))
    when = st.tuples(st.integers(0, TICKS), st.integers(0, TICKS // 2))
    row = st.builds(lambda where, when: where + when, where, when)
    rows = draw(st.lists(row, min_size=1, max_size=14))
    truth = apart(rows, unit_s)
    assume((truth.offset_s > truth.onset_s).any())

    def moved(row: Row, start: int, length: int, label: int) -> Row:
        return row[0], (row[1] + label) % classes, max(0, row[2] + start), max(0, row[3] + length)

    step = st.sampled_from([0, 0, 0, -1, 1])
    near = st.builds(moved, st.sampled_from(rows), step, step, st.sampled_from([0, 0, 1]))
    found = draw(st.lists(st.lists(near | row, max_size=14), min_size=1, max_size=3))
    if draw(st.booleans()):
        found.append(found[0])  # an operating point twice
    lengths = draw(st.lists(st.sampled_from([0, TICKS // 2, TICKS, 2 * TICKS]), min_size=clips, max_size=clips))
    lengths[0] = max(1, lengths[0])
    return truth, [length * unit_s for length in lengths], [apart(each, unit_s) for each in found], classes


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(systems())
def test_figures_curves_and_counts_are_those_of_psds_eval(system: Any) -> None:
    truth, durations_s, found, classes = system
    assert_equal_to_psds_eval(truth, durations_s, found, classes)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(systems(), st.sampled_from(RATIOS), st.sampled_from(RATIOS), st.sampled_from(RATIOS))
def test_counts_are_those_of_psds_eval_under_any_criteria(system: Any, dtc: float, gtc: float, cttc: float) -> None:
    truth, durations_s, found, classes = system
    setting = Setting("any", dtc, gtc, cttc, alpha_ct=1, alpha_st=0)
    ours = count(truth, durations_s, classes, Detections.of(found), [setting]).psds(setting)
    assert_same_counts(ours, Oracle(truth, durations_s, found, setting))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(systems(), st.lists(st.integers(0, 2), min_size=3, max_size=3), st.sampled_from([PSDS2, PSDS1_NO_VARIANCE]))
def test_resampled_clips_score_as_clips_that_are_there_so_often(
    system: Any, often: list[int], setting: Setting
) -> None:
    truth, durations_s, found, classes = system
    often = often[: len(durations_s)]
    chosen = np.repeat(np.arange(len(often)), often)
    again = [repeated(events, chosen) for events in found]
    tally = count(truth, durations_s, classes, Detections.of(found))
    value, once = tally.resampled([setting], [often, [1] * len(often)])[setting.name]
    assert once == pytest.approx(tally.psds(setting).value, abs=TOLERANCE, nan_ok=True)
    truth = repeated(truth, chosen)
    lengths = np.array(durations_s)[chosen]
    if (truth.offset_s > truth.onset_s).any() and lengths.any():
        if len(np.unique(truth.label[truth.offset_s > truth.onset_s])) > 1:
            assert value == pytest.approx(Oracle(truth, lengths, again, setting).psds(setting).value, abs=TOLERANCE)
    elif not (truth.offset_s > truth.onset_s).any():
        assert np.isnan(value)


def repeated(events: Events, chosen: npt.NDArray[Any]) -> Events:
    parts = [events.take(events.clip == clip) for clip in chosen]
    clip = [np.full(len(part), place) for place, part in enumerate(parts)]
    columns = [[getattr(part, name) for part in parts] for name in COLUMNS[1:]]
    return Events.of(*(np.concatenate([*column, []]) for column in [clip, *columns]))


TRUTH = Events.of([0, 0, 0, 1, 1], [0, 1, 1, 0, 2], [0, 2, 6, 1, 0], [4, 5, 8, 2, 10])
EDGES: dict[str, tuple[Events, list[Events]]] = {
    "nothing found": (TRUTH, [NOTHING]),
    "all found": (TRUTH, [TRUTH]),
    "all found and nothing found": (TRUTH, [NOTHING, TRUTH, NOTHING]),
    "the same operating point twice": (TRUTH, [TRUTH.take([0, 1]), TRUTH.take([1, 0])]),
    "one operating point better than the other": (
        TRUTH,
        [TRUTH, Events.of([0, 0, 1], [0, 0, 0], [0, 5, 9], [4, 6, 10])],
    ),
    "as many wrong, fewer right": (TRUTH, [TRUTH.take([0]), TRUTH.take([0, 1]), TRUTH.take([0, 1, 2])]),
    "a class never found": (TRUTH, [TRUTH.take([0, 3])]),
    "found classes without truth": (TRUTH, [Events.of([0, 0], [3, 0], [0, 0], [4, 4])]),
    "found ones that touch": (TRUTH, [Events.of([0, 0, 0], [0, 0, 0], [0, 2, 4], [2, 4, 6])]),
    "found ones that touch the truth": (TRUTH, [Events.of([0, 0, 1], [0, 1, 0], [4, 5, 0], [6, 6, 1])]),
    "found twice": (TRUTH, [TRUTH.take([0, 0, 1, 4, 4]), TRUTH.take([0, 1]), TRUTH.take([0, 0])]),
    "found ones of no length": (TRUTH, [Events.of([0, 0], [0, 1], [1, 2], [1, 5])]),
    "found beyond the clip": (TRUTH, [Events.of([0, 0, 0, 1], [0, 1, 2, 0], [9, 10, 12, -2], [11, 11, 13, 0])]),
    "true ones that touch": (Events.of([0, 0, 1], [0, 0, 1], [0, 2, 0], [2, 4, 1]), [Events.of([0], [0], [0], [4])]),
    "truth twice": (TRUTH.take([0, 0, 1, 4]), [TRUTH, Events.of([0], [0], [2], [6])]),
    "truth of no length": (Events.of([0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 3, 4]), [Events.of([0], [1], [1], [3])]),
    "truth of one class": (TRUTH.take([0, 3]), [TRUTH]),
    "truth beyond the clip": (
        Events.of([0, 0], [0, 1], [8, 12], [14, 14]),
        [Events.of([0, 0], [2, 0], [11, 12], [14, 14])],
    ),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("chosen", [SETTINGS, (STRICT,)], ids=["psds", "strict"])
def test_edges(edge: str, chosen: tuple[Setting, ...]) -> None:
    truth, found = EDGES[edge]
    assert_equal_to_psds_eval(truth, [10.0, 10.0], found, 4, chosen)


def test_a_clip_without_length_has_no_false_positives() -> None:
    found = [Events.of([0, 0, 1, 1], [0, 1, 0, 1], [-1, 6, -1, -3], [1, 7, 1, -2])]
    assert_equal_to_psds_eval(TRUTH, [10.0, 0.0], found, 3)


@pytest.mark.parametrize(
    ("ratio", "unit_s", "pieces", "length"),  # start, end, start, end, ... of pieces of an event, in units
    [
        (0.5, 0.1, [0, 1, 2, 3, 4, 5], 6),
        (0.5, 0.1, [0, 1, 2, 3, 6, 8], 8),
        (0.7, 1 / 3, [0, 1, 2, 5, 6, 7, 8, 10], 10),
        (0.7, 1.92, [0, 5, 6, 7, 9, 10], 10),
        (0.3, 1 / 3, [3, 7, 8, 9, 19, 20], 20),
        (0.3, 1.92, [3, 4, 5, 7, 9, 11, 12, 13], 20),
    ],
)
def test_the_last_bit_of_a_sum_decides_as_in_psds_eval(
    ratio: float, unit_s: float, pieces: list[int], length: int
) -> None:
    start, end = np.array(pieces[::2]) * unit_s, np.array(pieces[1::2]) * unit_s
    shares = (end - start) / (length * unit_s)
    assert (sum(shares.tolist()) >= ratio) != (pd.Series(shares).groupby(0 * shares).sum()[0] >= ratio)
    one = Events.of([0], [0], [0], [length * unit_s])
    for other in (0, 1):
        several = Events.of([0] * len(start), [other] * len(start), start, end)
        both = Events.of([0, 0], [0, 1], [50, 50], [51, 51])  # so that both classes have truth
        for truth, found in ((several, one), (one, several)):
            truth = Events.of(*(np.append(getattr(truth, name), getattr(both, name)) for name in COLUMNS))
            assert_equal_to_psds_eval(truth, [60.0], [found], 2, (Setting("one ratio", ratio, ratio, ratio, 1, 0),))


def test_rates_are_per_hour_and_stop_at_the_highest() -> None:
    truth = Events.of([0, 1], [0, 1], [0, 0], [5, 5])
    half = truth.take([0])
    wrong = Events.of([0], [1], [6], [8])
    both = Events.of([0, 0, 1], [0, 1, 1], [0, 6, 0], [5, 8, 5])
    one_hour = [1800.0, 1800.0]
    assert count(truth, one_hour, 2, Detections.of([half, both])).psds(PSDS1_NO_VARIANCE).value == pytest.approx(
        (0.5 * 1 + 1 * 99) / 100
    )
    at_the_stop = [18.0, 18.0]  # one in 36 s are 100 an hour
    for found in ([half, both], [both], [half, wrong]):
        assert_equal_to_psds_eval(truth, at_the_stop, found, 2)
    assert count(truth, at_the_stop, 2, Detections.of([half, both])).psds(PSDS1_NO_VARIANCE).value == pytest.approx(0.5)


def test_the_staircase_of_a_class() -> None:
    truth = Events.of([0] * 4, [0] * 4, np.arange(4), np.arange(4) + 0.5)
    one = truth.take([0])
    worse = Events.of([0], [0], [10], [11])
    found = [Events.of([0] * 3, [0] * 3, [0, 1, 10], [0.5, 1.5, 11]), one, worse, truth]
    psds = count(truth, [3600.0], 1, Detections.of(found)).psds(PSDS1)
    efpr, tpr = psds.curve(0)
    assert efpr.tolist() == [0, 1]
    assert tpr.tolist() == [1, 1]
    efpr, tpr = count(truth, [3600.0], 1, Detections.of(found[:3])).psds(PSDS1).curve(0)
    assert efpr.tolist() == [0, 1]
    assert tpr.tolist() == [0.25, 0.5]


@pytest.mark.parametrize("name", exact_sets.sets())
def test_the_exact_score_is_that_of_sed_scores_eval(name: str) -> None:
    made = exact_sets.sets()[name]
    sizes = [len(each) for each in made.scores]
    clip = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    start_s = np.concatenate([made.ends_s(k)[:-1] for k in range(len(sizes))])
    end_s = np.concatenate([made.ends_s(k)[1:] for k in range(len(sizes))])
    durations_s = np.array([made.ends_s(k)[-1] for k in range(len(sizes))])
    rows = [(k, label, *times) for k, events in enumerate(made.truth) for *times, label in events]
    truth, scores = Events.of(*zip(*rows, strict=True)), np.concatenate(made.scores)
    expected = json.loads(exact_sets.RESULTS.read_text())[name]
    free = np.ones((len(sizes), made.classes), bool)
    free[truth.clip, truth.label] = False
    weights = resample(len(sizes), 20, 0)
    samples = {}
    for max_efpr in (100.0, 1000.0):
        chosen = [replace(setting, max_efpr=max_efpr) for setting in SETTINGS]
        first = np.append(0, np.cumsum(sizes))
        lowest = lowest_thresholds(first, durations_s, scores, free, max_efpr, weights)
        for least in (np.zeros(made.classes, np.float16), lowest):
            found = all_detections(clip, start_s, end_s, scores, least)
            tally = count(truth, durations_s, made.classes, found, chosen, decimals=DECIMALS)
            for setting in chosen:
                key = setting.name if max_efpr == 100 else f"{setting.name} to 1000"
                if key in expected:
                    assert tally.psds(setting).value == pytest.approx(expected[key], abs=TOLERANCE)
            sampled = tally.resampled(chosen, weights)
            for key, values in sampled.items():  # the operating points that were left out change no sample either
                expected_values = samples.setdefault((key, max_efpr), values)
                assert values == pytest.approx(expected_values, abs=TOLERANCE)
    if name == "ten classes":
        assert (lowest_thresholds(first, durations_s, scores, free, 100.0, weights) > 0).any()


def test_without_truth_there_is_no_figure() -> None:
    tally = count(NOTHING, [10.0], 3, Detections.of([TRUTH.take([0])]))
    assert np.isnan([tally.psds(setting).value for setting in SETTINGS]).all()
    assert np.isnan(tally.resampled([PSDS2], [[1], [0]])[PSDS2.name]).all()


@pytest.mark.parametrize("found", [[Events.of([0, 0], [1, 1], [0, 1], [2, 3])], [TRUTH, Events.of([0], [0], [2], [1])]])
def test_events_that_psds_eval_refuses_are_refused(found: list[Events]) -> None:
    with pytest.raises(PSDSEvalError):
        Oracle(TRUTH, [10.0, 10.0], found, PSDS1)
    with pytest.raises(ConfigError, match=f"operating point {len(found) - 1}"):
        Detections.of(found)
    with pytest.raises(PSDSEvalError):
        Oracle(found[-1], [10.0, 10.0], [TRUTH], PSDS1)
    with pytest.raises(ConfigError, match="reference events"):
        count(found[-1], [10.0, 10.0], 3, Detections.of([TRUTH]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtc": 1.1}, {"gtc": -0.1}, {"cttc": 2.0}, {"alpha_ct": 1.5}, {"alpha_st": -1.0}, {"max_efpr": 0.0},
        {"cttc": None, "alpha_ct": 0.5},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="wrong"):
        Setting(**{"name": "wrong", "dtc": 0.5, "gtc": 0.5, "cttc": 0.3, "alpha_ct": 0.0, "alpha_st": 0.0} | wrong)


def test_no_operating_point() -> None:
    with pytest.raises(ConfigError, match="operating point"):
        count(TRUTH, [10.0, 10.0], 3, Detections.of([]))
    with pytest.raises(ConfigError, match="threshold"):
        detections_at(*chunks([2]), np.zeros((2, 3), np.float16), [])
    with pytest.raises(ConfigError, match="rise"):
        detections_at(*chunks([2]), np.zeros((2, 3), np.float16), [0.5, 0.5])


def chunks(clips: list[int]) -> tuple[Any, Any, Any]:
    """Clip, start and end of chunks, so many in each clip; the last one of a clip is shorter."""
    clip = np.repeat(np.arange(len(clips), dtype=np.int32), clips)
    start_s = np.concatenate([np.arange(each) for each in [*clips, 0]]) * 1.92
    last = np.append(clip[1:] != clip[:-1], True)[: len(clip)]
    return clip, start_s, np.where(last, start_s + 0.4, start_s + 1.92)


@st.composite
def scored(draw: st.DrawFn) -> tuple[Any, Any, Any, Any, Any]:
    clips = draw(st.lists(st.integers(0, 7), max_size=4))
    classes, levels = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    scores = (rng.integers(0, levels + 1, (sum(clips), classes)) / levels).astype(dtype)
    scores[rng.random(scores.shape) < 0.05] = np.nan
    thresholds = draw(st.sets(st.sampled_from([*(np.arange(1, levels + 1) / levels), 0.3, 0.01, 0.999]), min_size=1))
    return *chunks(clips), scores, sorted(thresholds)


@settings(deadline=None, max_examples=200)
@given(scored())
def test_found_at_thresholds_is_what_detect_finds_at_each(made: Any) -> None:
    clip, start_s, end_s, scores, thresholds = made
    found = detections_at(clip, start_s, end_s, scores, thresholds)
    one_by_one = [detect(clip, start_s, end_s, scores, threshold) for threshold in thresholds]
    assert found.points == len(thresholds)
    gathered = Detections.of(one_by_one)
    rows = [set(zip(*(getattr(each, name) for name in COLUMNS), strict=True)) for each in one_by_one]
    assert len(found.events) == sum(len(now - before) for before, now in pairwise([set(), *rows]))  # each is kept once
    for point, expected in enumerate(one_by_one):
        assert_same_events(at(found, point), expected)
        assert_same_events(at(gathered, point), expected)


def at(found: Detections, point: int) -> Events:
    return found.events.take((found.first <= point) & (point < found.stop)).sorted()


def assert_same_events(events: Events, expected: Events) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(events, column), getattr(expected, column))


def test_events_of_an_operating_point_twice_count_twice() -> None:
    twice = TRUTH.take([0, 0, 1])
    found = Detections.of([twice, twice, TRUTH.take([0]), NOTHING, twice])
    for point, expected in enumerate([twice, twice, TRUTH.take([0]), NOTHING, twice]):
        assert_same_events(at(found, point), expected)


def test_filters_before_and_after() -> None:
    clip, start_s, end_s = chunks([40])
    scores = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    thresholds = [0.2, 0.5, 0.8]
    smooth = median_filter(scores, (3, 1), mode="nearest")
    found = detections_at(clip, start_s, end_s, smooth, thresholds)
    found = found.take(found.events.offset_s - found.events.onset_s > 2)
    for point, threshold in enumerate(thresholds):
        active = median_filter((scores >= np.float32(threshold)).astype(np.float32), (3, 1), mode="nearest")
        expected = detect(clip, start_s, end_s, active, 0.5)
        assert_same_events(at(found, point), expected.take(expected.offset_s - expected.onset_s > 2))


@pytest.fixture(scope="module")
def small_set() -> strong_set.StrongSet:
    return strong_set.make(clips=60, events=500, seed=1)


@pytest.mark.slow
def test_many_classes(small_set: strong_set.StrongSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satpipe.jobs.metrics.psds_counts._PAIRS", 50)  # looked at in many parts
    made, thresholds = small_set, [0.02, 0.1, 0.5]
    truth, scores = made.truth.merged(), made.scores()
    tally = count(truth, made.durations_s, 416, detections_at(made.clip, made.start_s, made.end_s, scores, thresholds))
    one_by_one = [detect(made.clip, made.start_s, made.end_s, scores, threshold) for threshold in thresholds]
    for setting in (PSDS1, PSDS2):
        psds = tally.psds(setting)
        assert np.count_nonzero(psds.reference) > 100
        assert psds.tp.sum() > 0
        assert_same_counts(psds, Oracle(truth, made.durations_s, one_by_one, setting))
        again = tally.resampled([setting], np.ones((70, 60)))[setting.name]
        assert again == pytest.approx(np.full(70, psds.value), abs=TOLERANCE)


def test_the_set_by_rule_is_as_described(small_set: strong_set.StrongSet) -> None:
    made, again = small_set, strong_set.make(clips=60, events=500, seed=1)
    assert_same_events(made.truth, again.truth)
    np.testing.assert_array_equal(made.outputs, again.outputs)
    assert len(made.truth) == 500
    assert (made.truth.offset_s > made.truth.onset_s).all()
    assert made.truth.onset_s.min() >= 0
    assert made.truth.offset_s.max() == 10
    assert len(made.truth.merged()) < 500
    assert made.outputs.shape == (360, OUTPUTS)
    assert np.median(made.outputs) < 0.001
    scores = made.scores()
    assert scores.shape == (360, 416)
    assert np.count_nonzero(~scores.any(axis=0)) == 35


def test_the_set_by_rule_as_files(small_set: strong_set.StrongSet, tmp_path: Path) -> None:
    made = small_set
    made.write_truth(tmp_path / "strong.tsv")
    rows = pd.read_csv(tmp_path / "strong.tsv", sep="\t")
    assert list(rows.columns) == ["segment_id", "start_time_seconds", "end_time_seconds", "label"]
    assert rows["segment_id"].tolist() == [made.segments[clip] for clip in made.truth.clip]
    np.testing.assert_array_equal(rows["start_time_seconds"], made.truth.onset_s)
    np.testing.assert_array_equal(rows["end_time_seconds"], made.truth.offset_s)
    made.write_output(tmp_path / "out")
    recordings = Output(tmp_path / "out").batches.recordings()
    assert recordings["recording"].to_pylist() == [f"{segment}.wav" for segment in made.segments]
    scores = pq.read_table(tmp_path / "out" / "scores")
    np.testing.assert_array_equal(scores["start_s"], made.start_s)
    np.testing.assert_array_equal(scores["end_s"], made.end_s)
    values = scores["scores"].combine_chunks().flatten().to_numpy().reshape(-1, OUTPUTS)
    np.testing.assert_array_equal(values, made.outputs)
