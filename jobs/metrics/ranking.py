"""Clips against weak labels: average precision, ROC AUC, d-prime and lwlrap, and their bootstrap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Floats, Ints
from scipy.sparse import csr_array
from scipy.special import ndtri

Bools = npt.NDArray[np.bool_]

ROUNDING_S = 1e-6  # less than a sample at any rate, more than the rounding of a time within a year
BLOCK_CELLS = 1 << 22  # numbers in one intermediate array: 32 MiB in double precision


@dataclass(frozen=True, eq=False)
class WeakFigures:
    """Figures of one evaluation, or of B replicates of it: then every array has a first axis [B].

    An undefined figure is NaN, and no mean includes one.
    """

    positives: Ints
    """Clips with each class, [K]."""
    average_precision: Floats
    """Of each class, [K]: scikit-learn's `average_precision_score`. NaN without a positive."""
    auc: Floats
    """Area under the ROC curve of each class, ties counting half, [K]. NaN without a positive or without a negative."""
    micro_average_precision: Floats
    """Of all pairs of a clip and a class as one ranking, classes without a positive included, []."""
    lwlrap: Floats
    """Label-weighted label-ranking average precision, []: the mean over all (clip, true class) pairs of the precision
    among the classes that score at least as high in that clip (Fonseca et al., "Audio tagging with noisy labels and
    minimal supervision", DCASE 2019). It is scikit-learn's `label_ranking_average_precision_score` with each clip
    weighted by its number of labels; clips without any have no say."""

    @property
    def classes(self) -> Ints:
        """Number of classes averaged in mAP: those with a positive, []."""
        return _count(self.average_precision)

    @property
    def mean_average_precision(self) -> Floats:
        """Macro mean over classes with a positive: mAP, []."""
        return _mean(self.average_precision)

    @property
    def weighted_average_precision(self) -> Floats:
        """Mean over classes with a positive, each weighted by its number of positives, []."""
        return _mean(self.average_precision, self.positives)

    @property
    def auc_classes(self) -> Ints:
        """Number of classes averaged in the mean AUC: those with a positive and a negative, []."""
        return _count(self.auc)

    @property
    def mean_auc(self) -> Floats:
        """Macro mean of the area under the ROC curve, []."""
        return _mean(self.auc)

    @property
    def d_prime(self) -> Floats:
        """Of the mean AUC, as the AudioSet literature gives it (Hershey et al. 2017), []; not the classes' mean."""
        return d_prime(self.mean_auc)

    @property
    def class_d_prime(self) -> Floats:
        """Of the AUC of each class, [K]; infinite where the AUC is 0 or 1."""
        return d_prime(self.auc)


def clip_scores(
    clip: npt.NDArray[np.integer], start_s: Floats, end_s: Floats, scores: npt.NDArray[np.floating], chunk_s: float
) -> Floats:
    """Return the mean of each clip's whole chunks, [N, K]; of the chunks it has where none is whole.

    Row i is the i-th clip in order of appearance. A sum of half-precision scores of one clip is exact in double
    precision, so that equal scores stay tied whatever the order of chunks.

    Args:
        clip: Number of the clip of each chunk, [n]; chunks of a clip lie together.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n].
        scores: Of each chunk and class, [n, K].
        chunk_s: Length of a whole chunk.
    """
    first = np.flatnonzero(np.append(True, np.diff(clip) != 0)[: len(clip)])
    if len(np.unique(clip[first])) != len(first):
        raise ValueError("the chunks of a clip do not lie together")
    means = np.empty((len(first), scores.shape[1]))
    if not len(first):
        return means
    kept = np.abs(end_s - start_s - chunk_s) < ROUNDING_S
    sizes = np.diff(np.append(first, len(clip)))
    kept |= np.repeat(np.add.reduceat(kept, first, dtype=np.int64) == 0, sizes)
    counts = np.add.reduceat(kept, first, dtype=np.int64)

    # A block of clips at a time: only its chunks are ever held in double precision.
    block = (first * scores.shape[1]) // BLOCK_CELLS
    for begin in np.flatnonzero(np.append(True, np.diff(block) != 0)):
        end = np.searchsorted(block, block[begin], "right")
        rows = slice(first[begin], first[end] if end < len(first) else None)
        chunks = scores[rows].astype(np.float64)
        means[begin:end] = _sums(np.flatnonzero(kept[rows]), np.cumsum(counts[begin:end]), len(chunks)) @ chunks
    means /= counts[:, None]
    return means


def weak_figures(scores: npt.NDArray[np.floating], truth: Bools) -> WeakFigures:
    """Return the figures of an evaluation.

    Args:
        scores: Of each clip and class, [N, K].
        truth: Whether the clip has the class, [N, K].
    """
    from sklearn.metrics import average_precision_score  # slow to import

    figures = weak_replicates(scores, truth, np.ones((1, len(scores)), np.int32))
    average_precision = np.full(truth.shape[1], np.nan)
    for k in np.flatnonzero(figures.positives[0]):
        average_precision[k] = average_precision_score(truth[:, k], scores[:, k])
    return WeakFigures(
        figures.positives[0],
        average_precision,
        figures.auc[0],
        figures.micro_average_precision[0],
        figures.lwlrap[0],
    )


def weak_replicates(scores: npt.NDArray[np.floating], truth: Bools, weights: npt.NDArray[np.integer]) -> WeakFigures:
    """Return the figures of each bootstrap replicate: those of the data with clips repeated.

    A class that has no positive in a replicate is not in the means of that replicate, so they may average fewer
    classes than the evaluation itself. Average precision needs the interval that `bootstrap.interval` gives with an
    estimate.

    Args:
        scores: Of each clip and class, [N, K].
        truth: Whether the clip has the class, [N, K].
        weights: How often each clip is in each replicate, [B, N]: see `bootstrap.resample`.
    """
    if scores.ndim != 2 or truth.shape != scores.shape or weights.shape != (len(weights), len(scores)):
        raise ValueError(f"shapes do not fit: scores {scores.shape}, truth {truth.shape}, weights {weights.shape}")
    if truth.dtype != np.bool_ or weights.dtype.kind not in "iu":
        raise ValueError(f"truth must be boolean and weights integers, not {truth.dtype} and {weights.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError("some scores are not finite")

    by_clip = np.ascontiguousarray(weights.T, np.int32)  # [N, B]
    clips, classes = scores.shape
    positives = np.empty((len(weights), classes), np.int32)
    average_precision, auc = np.empty(positives.shape), np.empty(positives.shape)
    for k in range(classes):
        ranked = _rank(scores[:, k], truth[:, k], np.arange(clips), by_clip)
        positives[:, k], average_precision[:, k], auc[:, k] = ranked
    _, micro, _ = _rank(scores.ravel(), truth.ravel(), np.repeat(np.arange(clips), classes), by_clip)
    precisions, labels = _label_precisions(scores, truth)
    lwlrap = _ratio(weights @ precisions, weights @ labels)
    return WeakFigures(positives, average_precision, auc, micro, lwlrap)


def d_prime(auc: Floats) -> Floats:
    """Return the distance, in standard deviations, of two normal distributions with this area under the ROC curve."""
    distance: Floats = np.sqrt(2) * ndtri(auc)
    return distance


def _rank(scores: npt.NDArray[Any], truth: Bools, clip: npt.NDArray[Any], weights: Ints) -> tuple[Any, Floats, Floats]:
    """Rank entries once and return positives, average precision and AUC under many weights, each [B].

    Both figures change only at thresholds that a positive has. The weight of the entries between two of them is a
    product with a sparse matrix of zeros and ones: much faster than cumulative sums over all entries.

    Args:
        scores: Of each entry, [m].
        truth: Of each entry, [m].
        clip: Of each entry, [m]: its row of the weights.
        weights: Of each clip, [N, B].
    """
    replicates = weights.shape[1]
    positives = np.zeros(replicates, np.int64)
    average_precision, auc = np.full(replicates, np.nan), np.full(replicates, np.nan)
    if not truth.any():
        return positives, average_precision, auc

    order = np.argsort(scores)[::-1]
    scores, clip = scores[order], clip[order]
    positive = np.flatnonzero(truth[order])
    # Runs of equal scores that hold a positive, from `begin` to `end` of the order: the thresholds that matter.
    edges = np.concatenate(([0], np.flatnonzero(np.diff(scores)) + 1, [len(scores)]))
    run = np.unique(np.searchsorted(edges, positive, "right"))
    begin, end = edges[run - 1], edges[run]
    # What is above the first run, what is in it, what is between it and the next, ..., the rest.
    stops = np.append(np.stack((begin, end), axis=1), len(scores))
    entries = _sums(clip, stops, len(weights))
    true = _sums(clip[positive], np.searchsorted(positive, end), len(weights))

    step = max(1, BLOCK_CELLS // len(stops))
    for part in (slice(at, at + step) for at in range(0, replicates, step)):
        new = true @ weights[:, part]  # positives in each run, [runs, replicates]
        found = np.cumsum(new, axis=0)
        upto = np.cumsum(entries @ weights[:, part], axis=0)
        above, within, total = upto[:-1:2], upto[1::2], upto[-1]
        positives[part] = found[-1]
        average_precision[part] = _ratio(_dot(new, _ratio(found, within, undefined=0.0)), found[-1])
        # A positive has below it the negatives that are not above its run, and half of those within it.
        below = total - found[-1] - ((above - (found - new)) + (within - found)) / 2
        auc[part] = _ratio(_dot(new, below), found[-1] * (total - found[-1]))
    return positives, average_precision, auc


def _sums(column: npt.NDArray[Any], stops: npt.NDArray[Any], columns: int) -> csr_array:
    """Return the matrix whose row i sums up the given columns, a list [m], from the previous stop to stop i."""
    column = column[: stops[-1]]
    return csr_array((np.ones(len(column), np.int32), column, np.append(0, stops)), shape=(len(stops), columns))


def _label_precisions(scores: npt.NDArray[Any], truth: Bools) -> tuple[Floats, Ints]:
    """Return the sum, over its true classes, of the precision in each clip, and the number of those, both [N]."""
    clip, label = np.nonzero(truth)
    precision = np.empty(len(clip))
    step = max(1, BLOCK_CELLS // max(1, truth.shape[1]))
    for part in (slice(at, at + step) for at in range(0, len(clip), step)):
        rows = clip[part]
        listed = scores[rows] >= scores[rows, label[part], None]
        precision[part] = np.sum(listed & truth[rows], axis=1) / np.sum(listed, axis=1)
    total: Floats = np.bincount(clip, precision, len(truth)).astype(np.float64)
    return total, np.sum(truth, axis=1, dtype=np.int32)


def _ratio(over: Any, under: Any, undefined: float = np.nan) -> Floats:
    """Divide, element by element; what is divided by zero is undefined."""
    ratio: Floats = np.full(np.shape(under), undefined)
    np.divide(over, under, out=ratio, where=under != 0)
    return ratio


def _dot(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
    """Sum up products over the first axis."""
    dot: Floats = np.einsum("rb,rb->b", left, right)
    return dot


def _count(values: Floats) -> Ints:
    """Return the number of defined values on the last axis."""
    count: Ints = np.sum(~np.isnan(values), axis=-1, dtype=np.int32)
    return count


def _mean(values: Floats, weights: npt.NDArray[Any] | None = None) -> Floats:
    """Return the mean of the defined values over the last axis, NaN if there is none."""
    weights = ~np.isnan(values) * (1 if weights is None else weights)
    return _ratio(np.sum(np.nan_to_num(values) * weights, axis=-1), np.sum(weights, axis=-1))
