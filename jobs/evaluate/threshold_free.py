"""Figures of strong labels that need no threshold: PSDS, ranking and calibration of segments."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from satpipe.jobs.evaluate.branches import active_chunks
from satpipe.jobs.evaluate.curves import RELIABILITY
from satpipe.jobs.evaluate.evaluator import as_number, named
from satpipe.jobs.metrics import psds, segments
from satpipe.jobs.metrics.arrays import Bools, Floats, mean
from satpipe.jobs.metrics.psds_counts import Detections
from satpipe.jobs.metrics.ranking import RankingMetrics
from satpipe.jobs.metrics.sound_events import Events

if TYPE_CHECKING:
    from satpipe.jobs.evaluate.strong_figures import StrongEvaluator

_POSITIVE = "classes with scores and a positive segment"
_BOTH = "classes with scores, a positive and a negative segment"
RANKED = (  # name, attribute of `RankingMetrics`, attribute with the number of classes averaged, rule
    ("segment_mAP", "mean_average_precision", "classes", _POSITIVE),
    ("segment_auc", "mean_auc", "auc_classes", _BOTH),
    ("segment_d_prime", "d_prime", "auc_classes", f"of the mean AUC, {_BOTH}"),
)


def add_segments(evaluator: "StrongEvaluator") -> None:
    """Add ranking and calibration of chunks, and their curves. A chunk is a segment, whatever `segment_s`."""
    chunks, labels, scored = evaluator.chunks, evaluator.labels, evaluator.classes.scored
    kept = evaluator.clip_of[chunks.clip] >= 0
    scores = chunks.scores if kept.all() else chunks.scores[kept]
    clip = evaluator.clip_of[chunks.clip[kept]]

    def active(events: Events) -> Iterator[Bools]:
        row, label = active_chunks(events, chunks, evaluator.model["chunk_s"])
        for k in scored.tolist():
            mask = np.zeros(len(chunks), bool)
            mask[row[slice(*np.searchsorted(label, [k, k + 1]))]] = True
            yield mask[kept]

    def each() -> Iterator[tuple[Bools, Bools | None]]:
        judged = evaluator.all_judged
        known: Iterable[Bools | None] = [None] * len(scored) if judged is None else active(judged)
        return zip(active(evaluator.everything), known, strict=True)

    weights = np.concatenate([np.ones((1, len(evaluator.duration_s)), np.int32), evaluator.weights])
    metrics = segments.ranked(scores, each(), clip, weights)
    how = {key: evaluator.how[key] for key in ("class_set", "class_set_sha256", "classes", "median_filter")}
    how |= {"segment_s": evaluator.model["chunk_s"], "truth": "as is"}
    for name, attribute, averaged, rule in RANKED:
        values = getattr(metrics, attribute)
        number = int(getattr(metrics, averaged)[0])
        mirrored = name == "segment_mAP"
        evaluator.add(
            name, "macro", values[0], values[1:], mirrored=mirrored, **how, classes_averaged=number, nan_rule=rule
        )

    together = np.zeros((2, segments.LEVELS), np.int64)
    rows, errors = [], []
    for k, (column, (positive, judged)) in enumerate(zip(scored.tolist(), each(), strict=True)):
        counts = segments.level_counts(scores[:, k], positive, judged)
        together += counts
        number = int(counts[1].sum())
        if number:
            evaluator.curves.add_chunks(labels[column], counts, number)
            errors.append(segments.calibration(counts).error)
            rows.append({**named(labels[column]), **_ranks(metrics, k), "calibration_error": as_number(errors[-1])})
    evaluator.add_classes(rows)
    evaluator.curves.add_chunks(None, together, _positives(evaluator))
    all_together = segments.calibration(together)
    evaluator.curves.add(RELIABILITY, None, all_together.score, all_together.share)
    bins: dict[str, Any] = {"bins": segments.BINS}
    rule = "all segments and classes with scores together"
    evaluator.add("calibration_error", "micro", all_together.error, **how, **bins, classes_averaged=None, nan_rule=rule)
    evaluator.add(
        "calibration_error", "macro", mean(np.array(errors, np.float64)), **how, **bins, classes_averaged=len(errors),
        nan_rule=_POSITIVE,
    )  # fmt: skip


def _ranks(metrics: RankingMetrics, k: int) -> dict[str, float | None]:
    values = {"segment_average_precision": metrics.average_precision, "segment_auc": metrics.auc}
    return {name: as_number(value[0, k]) for name, value in values.items()}


def _positives(evaluator: "StrongEvaluator") -> int:
    """Return the number of pairs of a kept chunk and a class in it, including classes without scores."""
    row, _ = active_chunks(evaluator.everything, evaluator.chunks, evaluator.model["chunk_s"])
    return int(np.count_nonzero(evaluator.clip_of[evaluator.chunks.clip[row]] >= 0))


def add_psds(evaluator: "StrongEvaluator", reference: Events) -> None:
    """Add PSDS and its curves."""
    number = evaluator.options.psds_points
    if number == 0:
        return
    merged = reference.merged(touching=False)
    if len(merged) < len(reference):
        overlap = len(reference) - len(merged)
        evaluator.note(f"{overlap:,} labelled events overlap another of their class: merged for PSDS")
    if number is None:
        found, source = _at_all(evaluator), "all scores"
    else:
        thresholds: Floats = (np.arange(number) + 0.5) / number
        found = iter([evaluator.detector.at_each(thresholds)])
        source = f"{thresholds[0]:g} to {thresholds[-1]:g}, evenly spaced"
    tally = psds.count(
        merged, evaluator.duration_s, len(evaluator.labels), map(evaluator.kept_of, found),
        decimals=psds.DECIMALS if number is None else None,
    )  # fmt: skip
    samples = tally.resampled(psds.SETTINGS, evaluator.weights)
    keys = ("median_filter", "min_s", "class_set", "class_set_sha256", "classes")
    how = {key: evaluator.how[key] for key in keys} | {"truth": "as is, overlapping events of a class merged"}
    how |= {"thresholds": evaluator.options.psds_thresholds, "threshold_source": source}
    for setting in psds.SETTINGS:
        score = tally.psds(setting)
        criteria = {key: value for key, value in asdict(setting).items() if key != "name"}
        with_truth = int((score.reference > 0).sum())
        rule = "classes with truth, mean less alpha_st standard deviations"
        how |= {**criteria, "classes_averaged": with_truth, "nan_rule": rule}
        evaluator.add(setting.name, "macro", score.value, samples[setting.name], mirrored=True, **how)
        evaluator.curves.add_psds(score, () if setting is psds.PSDS1_NO_VARIANCE else evaluator.labels)
    if with_truth == 1:
        evaluator.note(
            "the PSDS of a single class is the area under its curve, as in sed_scores_eval; psds-eval gives 0, "
            "whatever was detected"
        )


def _at_all(evaluator: "StrongEvaluator") -> Iterator[Detections]:
    kept = evaluator.clip_of >= 0
    durations_s, weights = np.zeros(len(kept)), np.zeros((len(evaluator.weights), len(kept)), np.int32)
    durations_s[kept], weights[:, kept] = evaluator.duration_s, evaluator.weights
    maximum = max(each.max_efpr for each in psds.SETTINGS)
    return evaluator.detector.at_all(evaluator.everything, durations_s, weights, maximum)
