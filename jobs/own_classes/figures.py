"""Figures of own classes, from examples scored by classifiers that had not seen their recording."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from satpipe.jobs.metrics.arrays import Bools, Floats, ratio
from satpipe.jobs.metrics.bootstrap import interval, resample
from satpipe.jobs.metrics.ranking import rank
from satpipe.jobs.own_classes.fit import Examples, Fitted

REPLICATES = 200
DEFAULT_THRESHOLD = 0.5  # of a class whose threshold cannot be chosen
Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassFigures:
    """Figures of a class, with 95 % intervals over recordings."""

    label: str
    examples: int
    recordings: int
    average_precision: float
    average_precision_interval: Interval
    threshold: float
    """The score with the highest F1."""
    threshold_interval: Interval
    f1: float
    """At the threshold, which was chosen for it."""
    f1_interval: Interval
    confused_with: str
    """The other class that scores highest in most of the examples in which any scores higher; "" for none."""
    confused: float
    """Share of the examples in which that class scores higher."""

    def card(self) -> dict[str, Any]:
        """Return the figures with four digits; those that are not defined are None."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def figures(examples: Examples, fitted: Fitted, seed: int) -> list[ClassFigures]:
    """Return the figures of each class."""
    weights = resample(len(examples.group), REPLICATES, seed, examples.group).T  # [n, B]
    weights = np.concatenate([np.ones((len(weights), 1), np.int32), weights], axis=1)  # first: the examples themselves
    return [_class(k, examples, fitted.held_out, weights) for k in range(len(examples.labels))]


def _class(k: int, examples: Examples, held_out: Floats, weights: Any) -> ClassFigures:
    present, scores = examples.present[:, k], held_out[:, k]
    used = examples.known[:, k] & ~np.isnan(scores)
    rows = np.arange(int(used.sum()))
    _, precision, _ = rank(scores[used], present[used], rows, np.ascontiguousarray(weights[used], np.int32))
    thresholds, f1 = _best(scores[used], present[used], weights[used])
    other, share = _confused(k, present & used, held_out)
    threshold = float(thresholds[0])
    return ClassFigures(
        label=examples.labels[k],
        examples=int(present.sum()),
        recordings=len(np.unique(examples.group[present])),
        average_precision=float(precision[0]),
        average_precision_interval=_limited(interval(precision[1:], estimate=float(precision[0]))),
        threshold=DEFAULT_THRESHOLD if np.isnan(threshold) else threshold,
        threshold_interval=interval(thresholds[1:]),
        f1=float(f1[0]),
        f1_interval=interval(f1[1:]),
        confused_with=examples.labels[other] if share else "",
        confused=share,
    )


def _best(scores: Floats, present: Bools, weights: Any) -> tuple[Floats, Floats]:
    """Return the threshold with the highest F1, and that F1, under each of the weights [n, B]: [B] each, or NaN.

    The threshold is in the middle between the lowest score above it and the next one below.
    """
    none = np.full(weights.shape[1], np.nan)
    if not present.any():
        return none, none
    order = np.argsort(-scores, kind="stable")
    scores, present, weights = scores[order], present[order], weights[order]
    # F1 is highest at the score of an example of the class: the last example with each such score, and the one below.
    last = np.unique(np.searchsorted(-scores, -scores[present], "right")) - 1
    first = np.append(0, last[:-1] + 1)
    weights = weights[: last[-1] + 1]
    found = np.cumsum(np.add.reduceat(weights, first, axis=0), axis=0)  # [scores, B]
    hits = np.cumsum(np.add.reduceat(weights * present[: len(weights), None], first, axis=0), axis=0)
    f1 = ratio(2.0 * hits, found + hits[-1])
    best = np.argmax(np.nan_to_num(f1, nan=-1.0), axis=0)
    middles = (scores[last] + np.append(scores, 0.0)[last + 1]) / 2
    defined = hits[-1] > 0
    return np.where(defined, middles[best], np.nan), np.where(defined, f1[best, np.arange(len(best))], np.nan)


def _confused(k: int, rows: Bools, held_out: Floats) -> tuple[int, float]:
    """Return the class that most often scores higher than class k in its examples, and how often, as a share."""
    if not rows.any():
        return k, 0.0
    best = np.argmax(np.nan_to_num(held_out[rows], nan=-1.0), axis=1)
    counts = np.bincount(best[best != k], minlength=held_out.shape[1])
    return int(counts.argmax()), float(counts.max() / rows.sum())


def _limited(limits: Interval) -> Interval:
    return max(0.0, limits[0]), min(1.0, limits[1])


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value
