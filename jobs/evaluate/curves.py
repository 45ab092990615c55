"""Curves of an evaluation: computed with its figures, saved next to its result, drawn by `reports`.

A curve is a polyline. Curves that are staircases by definition (precision over recall, whose area is average precision,
and the PSD-ROC) include their corners, so that straight lines draw them and their area is the figure.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.jobs.metrics.arrays import Bools, Floats, Rows, run_starts
from satpipe.jobs.metrics.psds import Psds
from satpipe.pipeline.tables.schemas import CURVES
from satpipe.sat.labels import Label

PR_CLIPS, PR_CHUNKS, RELIABILITY = "precision_recall_clips", "precision_recall_chunks", "reliability"
MAX_POINTS = 500  # of a curve
FINENESS = 1 / 2000  # of an axis: less than the width of a line


class Curves:
    """Collects curves."""

    def __init__(self) -> None:
        self._parts = [CURVES.empty_table()]

    def add(self, curve: str, label: Label | None, x: Floats, y: Floats) -> None:
        """Add a curve, with fewer points if it has very many.

        Args:
            curve: Its kind: `PR_CLIPS`, `PR_CHUNKS`, `RELIABILITY` or the name of a PSDS setting.
            label: Its class; None: all classes together.
            x: Of its points, [n]: recall, or effective false positives per hour.
            y: Of its points, [n]: precision, or the effective true positive ratio.
        """
        points = thinned(np.stack([x, y], axis=1))
        mid, name = (label.mid, label.name) if label else (None, None)
        columns = [[curve] * len(points), [mid] * len(points), [name] * len(points)]
        arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, CURVES, strict=False)]
        self._parts.append(pa.table([*arrays, pa.array(points[:, 0]), pa.array(points[:, 1])], schema=CURVES))

    def add_psds(self, score: Psds, labels: Sequence[Label]) -> None:
        """Add the PSD-ROC of a score and, if their labels [K] are given, of its classes with a reference."""
        name, maximum = score.setting.name, score.setting.max_efpr
        self.add(name, None, *psd_roc(score.efpr, score.etpr, maximum))
        for k, label in enumerate(labels):
            if score.reference[k]:
                self.add(name, label, *psd_roc(*score.curve(k), maximum))

    def add_chunks(self, name: Label | None, counts: Rows, positives: int) -> None:
        """Add precision over recall of chunks.

        Args:
            name: Class of the curve; None: all classes together.
            counts: Its chunks, see `level_counts`.
            positives: Number of chunks with the class, including those without a score.
        """
        if positives and counts[0].any():
            self.add(PR_CHUNKS, name, *_precision_recall_of(counts, positives))

    def table(self) -> pa.Table:
        """Return all curves, in the order in which they were added."""
        return pa.concat_tables(self._parts).unify_dictionaries().combine_chunks()


def precision_recall(labels: Bools, scores: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return recall and precision as scikit-learn computes them, with corners.

    Args:
        labels: Of each entry, [n]; at least one is true.
        scores: Of each entry, [n].
    """
    from sklearn.metrics import precision_recall_curve  # slow to import

    precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
    precision[-1] = precision[-2]  # scikit-learn sets 1 at recall 0, where nothing is detected
    return _staircase(recall[::-1], precision[::-1])


def _precision_recall_of(counts: Rows, positives: int) -> tuple[Floats, Floats]:
    """Return recall and precision at all thresholds, with corners.

    Args:
        counts: Number of chunks, and of those with the class, at each half-precision score, see `level_counts`.
        positives: Number of chunks with the class, including those without a score.
    """
    detected, correct = np.cumsum(counts[:, np.flatnonzero(counts[0])[::-1]], axis=1)
    recall, precision = correct / positives, correct / detected
    return _staircase(np.append(0.0, recall), np.append(precision[:1], precision))


def psd_roc(efpr: Floats, etpr: Floats, max_efpr: float) -> tuple[Floats, Floats]:
    """Return a PSD-ROC up to its maximum rate, with corners.

    Args:
        efpr: Effective false positives per hour, rising from 0, [n].
        etpr: Effective true positive ratio from each rate to the next, [n].
        max_efpr: Where it ends.
    """
    inside = efpr < max_efpr
    x, y = np.append(efpr[inside], max_efpr), np.append(etpr[inside], etpr[inside][-1:])
    return np.repeat(x, 2)[1:-1], np.repeat(y, 2)[:-2]


def _staircase(recall: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Return corners: from one recall to the next the precision is that of the next, as in average precision."""
    points = np.stack([np.repeat(recall, 2)[:-1], np.repeat(precision, 2)[1:]], axis=1)
    points = points[np.append(True, np.any(np.diff(points, axis=0) != 0, axis=1))]
    steps = np.diff(points, axis=0)
    onwards = np.all(steps[:-1] * steps[1:] >= 0, axis=1) & np.any((steps[:-1] == 0) & (steps[1:] == 0), axis=1)
    x, y = points[np.concatenate([[True], ~onwards, [True]])[: len(points)]].T
    return x, y


def thinned(points: Floats, maximum: int = MAX_POINTS) -> Floats:
    """Return a polyline [m, 2] through at most `maximum` of the points [n, 2] of another, including its ends.

    The points left out are close to the new line (Douglas and Peucker, "Algorithms for the reduction of the number of
    points required to represent a digitized line or its caricature", 1973): within `FINENESS` of each axis, or as close
    as `maximum` allows. The x must not decrease.
    """
    if len(points) <= maximum:
        return points
    span = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1)
    kept = _outline(unit)
    fineness = FINENESS
    while True:
        left = kept[_peucker(unit[kept], fineness)]
        if len(left) <= maximum:
            return points[left]
        fineness *= 1.5


def _outline(unit: Floats) -> Rows:
    """Return the positions of the first, last, highest and lowest point in each column of the width of a line."""
    column = np.minimum(unit[:, 0] / FINENESS, 1 / FINENESS - 1).astype(np.int64)
    order = np.lexsort((unit[:, 1], column))
    edges = run_starts(column)
    last = np.append(edges[1:], len(unit)) - 1
    return np.unique(np.concatenate([edges, last, order[edges], order[last]]))


def _peucker(unit: Floats, fineness: float) -> Bools:
    """Return which points are needed for the line to pass all other points at less than `fineness`."""
    needed = np.zeros(len(unit), bool)
    needed[[0, -1]] = True
    segments = [(0, len(unit) - 1)]
    while segments:
        first, last = segments.pop()
        if last - first < 2:
            continue
        along, away = unit[last] - unit[first], unit[first + 1 : last] - unit[first]
        square = float(along @ along)
        part = np.clip(away @ along / square, 0, 1) if square else np.zeros(len(away))
        distance = np.linalg.norm(away - part[:, None] * along, axis=1)  # from the segment, not from its extension
        farthest = int(distance.argmax())
        if distance[farthest] > fineness:
            middle = first + 1 + farthest
            needed[middle] = True
            segments += [(first, middle), (middle, last)]
    return needed
