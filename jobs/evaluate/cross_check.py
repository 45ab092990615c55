"""`--cross-check`: the same figures once more by sed_eval and psds-eval themselves, on a sample of the clips."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from satpipe.jobs.metrics import counts, psds, sed
from satpipe.jobs.metrics.arrays import Floats, mean
from satpipe.jobs.metrics.psds_counts import Detections
from satpipe.jobs.metrics.sound_events import Events

CLIPS = 50
"""Number of clips, drawn by the random seed of the bootstrap, that are checked where there are more."""
CLASSES = 8  # that psds-eval checks, the most common ones: it compares all pairs of classes
THRESHOLDS = (0.2, 0.5, 0.8)
CTTC = 0.3  # psds-eval wants one


@dataclass(frozen=True, eq=False)
class Case:
    """Events of the clips that are checked, and how they are counted."""

    reference: Events
    detected: Events
    at_thresholds: Detections
    """At `THRESHOLDS`."""
    durations_s: Floats
    classes: int
    segment_s: float
    collar_s: float
    offset_fraction: float

    def take(self, clips: Sequence[int]) -> "Case":
        """Return these clips, renumbered."""
        new = np.full(len(self.durations_s), -1, np.int32)
        new[np.asarray(clips)] = np.arange(len(clips), dtype=np.int32)

        def some(events: Events) -> Events:
            kept = events.take(new[events.clip] >= 0)
            return replace(kept, clip=new[kept.clip])

        at = self.at_thresholds.take(new[self.at_thresholds.events.clip] >= 0)
        at = replace(at, events=replace(at.events, clip=new[at.events.clip]))
        durations_s = self.durations_s[np.asarray(clips)]
        return replace(
            self,
            reference=some(self.reference),
            detected=some(self.detected),
            at_thresholds=at,
            durations_s=durations_s,
        )


def cross_check(case: Case, seed: int) -> dict[str, Any]:
    """Return the figures of both, and the largest difference.

    Args:
        case: All clips.
        seed: Decides which clips are checked if there are more than `CLIPS`.
    """
    number = len(case.durations_s)
    clips = np.sort(np.random.default_rng(seed).permutation(number)[:CLIPS])
    some = case.take(clips.tolist())
    rows: list[dict[str, Any]] = []
    for name, average, by, ours, theirs in [*_by_sed_eval(some), *_by_psds_eval(some)]:
        difference = abs(float(ours) - float(theirs))  # NaN if one is undefined
        if np.isnan(ours) != np.isnan(theirs):
            difference = float("inf")
        rows.append(
            {"name": name, "average": average, "by": by, "ours": _plain(ours), "theirs": _plain(theirs),
             "difference": _plain(difference)}
        )  # fmt: skip
    largest = max((row for row in rows if row["ours"] is not None), key=_difference, default=None)
    return {
        "clips": len(clips),
        "of_clips": number,
        "seed": seed,
        "sed_eval": version("sed_eval"),
        "psds_eval": version("psds_eval"),
        "figures": rows,
        "largest": None if largest is None else largest["difference"],
        "largest_of": None if largest is None else f"{largest['name']} {largest['average']}",
    }


def _difference(row: dict[str, Any]) -> float:
    return float("inf") if row["difference"] is None else float(row["difference"])


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


_Row = tuple[str, str, str, float, float]


def _by_sed_eval(case: Case) -> Iterator[_Row]:
    """Yield name, average, library and both values of the figures of segments, onsets and events."""
    labels = [str(label) for label in range(case.classes)]
    sound_event = sed.load_sed_eval().sound_event
    size: dict[str, Any] = {"clips": len(case.durations_s), "classes": case.classes}
    ways = {
        "segment": (
            sed.count_segments(case.reference, case.detected, segment_s=case.segment_s, **size),
            sound_event.SegmentBasedMetrics(labels, time_resolution=case.segment_s),
        ),
        "onset": (
            sed.count_events(case.reference, case.detected, collar_s=case.collar_s, offset_fraction=None, **size),
            sound_event.EventBasedMetrics(labels, t_collar=case.collar_s, evaluate_offset=False),
        ),
        "event": (
            sed.count_events(
                case.reference, case.detected, collar_s=case.collar_s, offset_fraction=case.offset_fraction, **size
            ),
            sound_event.EventBasedMetrics(labels, t_collar=case.collar_s, percentage_of_length=case.offset_fraction),
        ),
    }
    true, found = (_lists(events.sorted(), len(case.durations_s)) for events in (case.reference, case.detected))
    for kind, (counted, metrics) in ways.items():
        for reference, estimated in zip(true, found, strict=True):
            metrics.evaluate(reference_event_list=reference, estimated_event_list=estimated)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = metrics.results()
        total = counts.totals(counted)
        micro, classes = counts.micro_rates(total), counts.class_rates(total)
        overall, average = results["overall"], results["class_wise_average"]
        error = "error_rate" if kind == "segment" else f"{kind}_error_rate"
        yield f"{kind}_f1", "micro", "sed_eval", micro.f1[0], overall["f_measure"]["f_measure"]
        yield f"{kind}_precision", "micro", "sed_eval", micro.precision[0], overall["f_measure"]["precision"]
        yield f"{kind}_recall", "micro", "sed_eval", micro.recall[0], overall["f_measure"]["recall"]
        yield f"{kind}_f1", "macro", "sed_eval", mean(classes.f1)[0], average["f_measure"]["f_measure"]
        yield error, "micro", "sed_eval", micro.error_rate[0], overall["error_rate"]["error_rate"]


def _lists(events: Events, clips: int) -> list[list[dict[str, Any]]]:
    lists: list[list[dict[str, Any]]] = [[] for _ in range(clips)]
    columns = (events.clip, events.label, events.onset_s, events.offset_s)
    for clip, label, onset_s, offset_s in zip(*(column.tolist() for column in columns), strict=True):
        lists[clip].append({"event_label": str(label), "onset": onset_s, "offset": offset_s})
    return lists


def _by_psds_eval(case: Case) -> Iterator[_Row]:
    """Yield name, average, library and both values of the PSDS of the most common classes at `THRESHOLDS`."""
    import pandas as pd

    evaluator_of = load_psds_eval().PSDSEval
    number = np.bincount(case.reference.label, minlength=case.classes)
    chosen = np.flatnonzero(number)[np.argsort(-number[number > 0], kind="stable")[:CLASSES]]
    if len(chosen) < 2:  # it gets 0 for a single class
        return
    reference = case.reference.take(np.isin(case.reference.label, chosen)).merged(touching=False)
    reference = reference.take(reference.offset_s > reference.onset_s)
    found = case.at_thresholds.take(np.isin(case.at_thresholds.events.label, chosen))
    tally = psds.count(reference, case.durations_s, case.classes, found)

    def table(events: Events) -> Any:
        names = {"filename": events.clip, "event_label": events.label}
        text = {key: [f"{each:06d}" for each in values.tolist()] for key, values in names.items()}
        return pd.DataFrame({**text, "onset": events.onset_s, "offset": events.offset_s}).astype(
            {"filename": object, "event_label": object}
        )

    metadata = pd.DataFrame(
        {"filename": [f"{clip:06d}" for clip in range(len(case.durations_s))], "duration": case.durations_s}
    )
    for setting in psds.SETTINGS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = evaluator_of(
                setting.dtc, setting.gtc, CTTC if setting.cttc is None else setting.cttc,
                ground_truth=table(reference), metadata=metadata,
            )  # fmt: skip
            for point in range(len(THRESHOLDS)):
                evaluator.add_operating_point(
                    table(found.events.take((found.first <= point) & (point < found.stop))), info={"point": point}
                )
            theirs = evaluator.psds(setting.alpha_ct, setting.alpha_st, setting.max_efpr).value
        yield setting.name, "macro", "psds-eval", tally.psds(setting).value, theirs


def load_psds_eval() -> Any:
    """Import psds-eval, made to run beside today's NumPy.

    psds-eval 0.5.3 makes a number of an array [1, 1], which NumPy 2.4 refuses.
    """
    import psds_eval.psds  # type: ignore[import-untyped, unused-ignore]

    psds_eval.psds.int = lambda value: np.asarray(value).item()
    return psds_eval
