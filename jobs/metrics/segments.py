"""Metrics of segments that need no threshold: average precision, ROC AUC, d-prime, and calibration.

A segment is a chunk of the model; each segment and class is one decision.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints, Rows, ratio
from satpipe.jobs.metrics.ranking import RankingMetrics, rank

LEVELS = 1 << 16  # half-precision numbers
BINS = 15  # of Guo et al.


def level_counts(scores: npt.NDArray[np.float16], positive: Bools, judged: Bools | None = None) -> Rows:
    """Return the number of segments, and of those with the class, at each half-precision score, [2, `LEVELS`].

    Half precision has few numbers, so they are counted instead of sorted; positive ones sort by their bits.

    Args:
        scores: Of each segment, [n].
        positive: Whether the class is in it, [n].
        judged: Whether anybody knows, [n]; None: everywhere.
    """
    bits = np.ascontiguousarray(scores).view(np.uint16)
    known = np.ones(len(bits), bool) if judged is None else judged
    return np.stack([np.bincount(bits[some], minlength=LEVELS) for some in (known, known & positive)])


def ranked(
    scores: npt.NDArray[np.float16],
    segments: Iterator[tuple[Bools, Bools | None]],
    clip: Ints,
    weights: npt.NDArray[np.integer],
) -> RankingMetrics:
    """Return average precision and AUC of each class over segments, in samples of the clips; the rest is NaN.

    Args:
        scores: Of each segment and class, [n, S].
        segments: Of each class: where it is, [n], and where anybody knows, [n] or None.
        clip: Of each segment, [n].
        weights: How often each clip is in each sample, [B, clips].
    """
    by_clip = np.ascontiguousarray(weights.T, np.int32)
    shape = len(weights), scores.shape[1]
    positives = np.zeros(shape, np.int32)
    average_precision, auc = np.full(shape, np.nan), np.full(shape, np.nan)
    for k, (positive, judged) in enumerate(segments):
        if not positive.any():
            continue
        rows = slice(None) if judged is None else np.flatnonzero(judged)
        bits = np.ascontiguousarray(scores[:, k]).view(np.uint16)[rows]
        positives[:, k], average_precision[:, k], auc[:, k] = rank(bits, positive[rows], clip[rows], by_clip)
    undefined = np.full(len(weights), np.nan)
    return RankingMetrics(positives, average_precision, auc, undefined, undefined)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often the class is in segments with scores of each of `BINS` bins of equal width.

    Guo et al., "On calibration of modern neural networks", ICML 2017. Bins without a segment are left out.
    """

    score: Floats
    """Mean score of the segments of each bin, [b]."""
    share: Floats
    """Share of them with the class, [b]."""
    number: Rows
    """Number of segments of each bin, [b]."""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of `|share - score|` over segments, 0 to 1; NaN without one."""
        return float(ratio(np.sum(self.number * np.abs(self.share - self.score)), self.number.sum()))


def calibration(counts: Rows) -> Calibration:
    """Return the calibration of scores, given `level_counts` of one or several classes."""
    levels = np.flatnonzero(counts[0])
    values = levels.astype(np.uint16).view(np.float16).astype(np.float64)
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], values)
    number, positive = (np.bincount(place, counts[row, levels], BINS) for row in (0, 1))
    filled = number > 0
    total = np.bincount(place, values * counts[0, levels], BINS)
    return Calibration(
        total[filled] / number[filled], positive[filled] / number[filled], number[filled].astype(np.int64)
    )
