"""Curves of an evaluation: computed with its figures, kept beside its card, drawn by `reports`.

A curve is a line through points. What is a staircase by definition (precision over recall, whose area average
precision is, and the PSD-ROC) has its corners among them, so that straight lines draw it and its area is the figure.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.jobs.metrics.psds import Psds
from satpipe.jobs.metrics.sound_events import Floats
from satpipe.pipeline.tables.schemas import CURVES
from satpipe.sat.labels import Label

PR_CLIPS, PR_CHUNKS = "precision_recall_clips", "precision_recall_chunks"
MOST_POINTS = 500  # of a curve
FINENESS = 1 / 2000  # of an axis: less than a pen is wide
_LEVELS = 1 << 16  # half-precision numbers
Rows = npt.NDArray[np.int64]
_Points = npt.NDArray[np.float64]


class Curves:
    """Collects curves."""

    def __init__(self) -> None:
        self._parts = [CURVES.empty_table()]

    def add(self, curve: str, label: Label | None, x: Floats, y: Floats) -> None:
        """Add a curve, with fewer points if it has very many.

        Args:
            curve: What it is: `PR_CLIPS`, `PR_CHUNKS` or the name of a PSDS setting.
            label: Its class; None: all classes together.
            x: Of its points, [n]: recall, or effective false positives per hour.
            y: Of its points, [n]: precision, or the effective true positive ratio.
        """
        points = thinned(np.stack([x, y], axis=1))
        mid, name = (label.mid, label.name) if label else (None, None)
        columns = [[curve] * len(points), [mid] * len(points), [name] * len(points)]
        arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, CURVES, strict=False)]
        self._parts.append(pa.table([*arrays, pa.array(points[:, 0]), pa.array(points[:, 1])], schema=CURVES))

    def add_psds(self, name: str, score: Psds, labels: Sequence[Label]) -> None:
        """Add the PSD-ROC of a score, and those of its classes with truth if their labels [K] are given."""
        highest = score.setting.max_efpr
        self.add(name, None, *psd_roc(score.efpr, score.etpr, highest))
        for k, label in enumerate(labels):
            if score.truth[k]:
                self.add(name, label, *psd_roc(*score.curve(k), highest))

    def add_chunks(
        self, scores: npt.NDArray[np.float16], scored: Sequence[int], true: tuple[Rows, Rows], labels: Sequence[Label]
    ) -> None:
        """Add precision over recall of chunks.

        Args:
            scores: Of each chunk and class that has some, [n, S].
            scored: Those classes: positions in `labels`, [S]. The others are never found.
            true: Which chunk has which class, by class: positions in the scores and in `labels`, [m] and [m].
            labels: The classes, [K].
        """
        chunk, label = true
        together = Ranking()
        together.miss(int(np.count_nonzero(~np.isin(label, scored))))
        for column, k in enumerate(scored):
            ranking = Ranking()
            ranking.add(np.ascontiguousarray(scores[:, column]), chunk[slice(*np.searchsorted(label, [k, k + 1]))])
            together.merge(ranking)
            if ranking.positives:
                self.add(PR_CHUNKS, labels[k], *ranking.curve())
        if together.positives:
            self.add(PR_CHUNKS, None, *together.curve())

    def table(self) -> pa.Table:
        """Return all of them, in the order in which they were added."""
        return pa.concat_tables(self._parts).unify_dictionaries().combine_chunks()


def precision_recall(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return recall and precision as scikit-learn has them, with corners.

    Args:
        truth: Of each entry, [n]; one is true at least.
        scores: Of each entry, [n].
    """
    from sklearn.metrics import precision_recall_curve  # slow to import

    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    precision[-1] = precision[-2]  # at recall 0 it says 1, where nothing is found
    return _staircase(recall[::-1], precision[::-1])


class Ranking:
    """Chunks ranked by half-precision scores: there are so few of those that counting them is sorting them."""

    def __init__(self) -> None:
        self._true, self._all = np.zeros((2, _LEVELS), np.int64)
        self.positives = 0

    def add(self, scores: npt.NDArray[np.float16], true: npt.NDArray[np.integer]) -> None:
        """Add the chunks of a class.

        Args:
            scores: 0 to 1, [n].
            true: Positions of those in which the class is true.
        """
        levels = scores.view(np.uint16)  # positive numbers are ordered as their bits are
        self._all += np.bincount(levels, minlength=_LEVELS)
        self._true += np.bincount(levels[true], minlength=_LEVELS)
        self.positives += len(true)

    def merge(self, other: "Ranking") -> None:
        """Add all that another one has."""
        self._all += other._all
        self._true += other._true
        self.positives += other.positives

    def miss(self, positives: int) -> None:
        """Add true ones without a score: never found."""
        self.positives += positives

    def curve(self) -> tuple[Floats, Floats]:
        """Return recall and precision at all thresholds, with corners; there are true ones."""
        some = np.flatnonzero(self._all)[::-1]
        true, found = np.cumsum(self._true[some]), np.cumsum(self._all[some])
        recall, precision = true / self.positives, true / found
        return _staircase(np.append(0.0, recall), np.append(precision[:1], precision))


def psd_roc(efpr: Floats, etpr: Floats, max_efpr: float) -> tuple[Floats, Floats]:
    """Return a PSD-ROC up to its highest rate, with corners.

    Args:
        efpr: Effective false positives per hour, rising from 0, [n].
        etpr: Effective true positive ratio from each of these to the next, [n].
        max_efpr: Where it ends.
    """
    inside = efpr < max_efpr
    x, y = np.append(efpr[inside], max_efpr), np.append(etpr[inside], etpr[inside][-1:])
    return np.repeat(x, 2)[1:-1], np.repeat(y, 2)[:-2]


def _staircase(recall: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Return corners: from one recall to the next the precision is that of the next, as average precision has it."""
    points = np.stack([np.repeat(recall, 2)[:-1], np.repeat(precision, 2)[1:]], axis=1)
    points = points[np.append(True, np.any(np.diff(points, axis=0) != 0, axis=1))]
    steps = np.diff(points, axis=0)
    onwards = np.all(steps[:-1] * steps[1:] >= 0, axis=1) & np.any((steps[:-1] == 0) & (steps[1:] == 0), axis=1)
    x, y = points[np.concatenate([[True], ~onwards, [True]])[: len(points)]].T
    return x, y


def thinned(points: _Points, most: int = MOST_POINTS) -> _Points:
    """Return a line [m, 2] through some of the points [n, 2] of another: at most `most`, ends among them.

    What is left out lies close to the line that is left (Douglas and Peucker, "Algorithms for the reduction of the
    number of points required to represent a digitized line or its caricature", 1973): by `FINENESS` of each axis, or
    by as little as `most` allows. The x are not to go back.
    """
    if len(points) <= most:
        return points
    span = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1)
    kept = _outline(unit)
    fineness = FINENESS
    while True:
        left = kept[_peucker(unit[kept], fineness)]
        if len(left) <= most:
            return points[left]
        fineness *= 1.5


def _outline(unit: _Points) -> npt.NDArray[np.int64]:
    """Return positions of the first, last, highest and lowest point of each of many columns as wide as a hair."""
    column = np.minimum(unit[:, 0] / FINENESS, 1 / FINENESS - 1).astype(np.int64)
    order = np.lexsort((unit[:, 1], column))
    edges = np.flatnonzero(np.append(True, np.diff(column) != 0))
    last = np.append(edges[1:], len(unit)) - 1
    return np.unique(np.concatenate([edges, last, order[edges], order[last]]))


def _peucker(unit: _Points, fineness: float) -> npt.NDArray[np.bool_]:
    """Return which points are needed for the line to pass all others by less than `fineness`."""
    needed = np.zeros(len(unit), bool)
    needed[[0, -1]] = True
    pieces = [(0, len(unit) - 1)]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        along, away = unit[last] - unit[first], unit[first + 1 : last] - unit[first]
        square = float(along @ along)
        part = np.clip(away @ along / square, 0, 1) if square else np.zeros(len(away))
        distance = np.linalg.norm(away - part[:, None] * along, axis=1)  # from the piece, not from its line beyond it
        farthest = int(distance.argmax())
        if distance[farthest] > fineness:
            middle = first + 1 + farthest
            needed[middle] = True
            pieces += [(first, middle), (middle, last)]
    return needed
