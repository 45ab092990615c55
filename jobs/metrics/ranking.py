"""Metrics that rank clips by their scores, against weak labels: average precision, ROC AUC, d-prime and lwlrap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints, mean, ratio, run_starts
from scipy.sparse import csr_array
from scipy.special import ndtri

ROUNDING_S = 1e-6  # less than a sample at any rate, more than the rounding of a time within a year
BLOCK_CELLS = 1 << 22  # numbers in an intermediate array: 32 MiB in double precision


@dataclass(frozen=True, eq=False)
class RankingMetrics:
    """Metrics of one evaluation; of B replicates of it if every array has a first axis [B].

    An undefined metric is NaN, and every mean leaves it out.
    """

    positives: Ints
    """Clips with each class, [K]."""
    average_precision: Floats
    """Of each class, 0 to 1, [K]: scikit-learn's `average_precision_score`. NaN without a positive."""
    auc: Floats
    """Area under the ROC curve of each class, 0 to 1, ties counting half, [K]. NaN without a positive or a negative."""
    micro_average_precision: Floats
    """Of all pairs of a clip and a class as one ranking, including classes without a positive, 0 to 1, []."""
    lwlrap: Floats
    """Label-weighted label-ranking average precision, 0 to 1, []: the mean over all (clip, labelled class) pairs of the
    precision among the classes that score at least as high in that clip (Fonseca et al., "Audio tagging with noisy
    labels and minimal supervision", DCASE 2019). It is scikit-learn's `label_ranking_average_precision_score` with each
    clip weighted by its number of labels; clips without labels have no weight."""

    @property
    def classes(self) -> Ints:
        """Number of classes averaged in mAP: those with a positive, []."""
        return _count(self.average_precision)

    @property
    def mean_average_precision(self) -> Floats:
        """Macro mean over classes with a positive: mAP, []."""
        return mean(self.average_precision)

    @property
    def weighted_average_precision(self) -> Floats:
        """Mean over classes with a positive, weighted by their number of positives, []."""
        return mean(self.average_precision, self.positives)

    @property
    def auc_classes(self) -> Ints:
        """Number of classes averaged in the mean AUC: those with a positive and a negative, []."""
        return _count(self.auc)

    @property
    def mean_auc(self) -> Floats:
        """Macro mean of the area under the ROC curve, []."""
        return mean(self.auc)

    @property
    def d_prime(self) -> Floats:
        """Of the mean AUC, as in the AudioSet literature (Hershey et al. 2017), not the mean over classes, []."""
        return d_prime(self.mean_auc)

    @property
    def class_d_prime(self) -> Floats:
        """Of the AUC of each class, [K]; infinite where the AUC is 0 or 1."""
        return d_prime(self.auc)


def clip_scores(
    clip: npt.NDArray[np.integer], start_s: Floats, end_s: Floats, scores: npt.NDArray[np.floating], chunk_s: float
) -> Floats:
    """Return the mean score of the whole chunks of each clip, [N, K]; of all its chunks if none is whole.

    Row i is the i-th clip in order of appearance. The sum of half-precision scores is exact in double precision, so
    equal means stay tied whatever the order of chunks.

    Args:
        clip: Number of the clip of each chunk, [n]; the chunks of a clip are adjacent.
        start_s: Of each chunk, [n].
        end_s: Of each chunk, [n].
        scores: Of each chunk and class, [n, K].
        chunk_s: Length of a whole chunk, seconds.

    Raises:
        ValueError: The chunks of a clip are not adjacent.
    """
    first = run_starts(clip)
    if len(np.unique(clip[first])) != len(first):
        raise ValueError("the chunks of a clip are not adjacent")
    means = np.empty((len(first), scores.shape[1]))
    if not len(first):
        return means
    kept = np.abs(end_s - start_s - chunk_s) < ROUNDING_S
    sizes = np.diff(np.append(first, len(clip)))
    kept |= np.repeat(np.add.reduceat(kept, first, dtype=np.int64) == 0, sizes)
    counts = np.add.reduceat(kept, first, dtype=np.int64)

    # Clips are processed in blocks, so that only the chunks of one block exist in double precision.
    block = (first * scores.shape[1]) // BLOCK_CELLS
    for begin in run_starts(block):
        end = np.searchsorted(block, block[begin], "right")
        rows = slice(first[begin], first[end] if end < len(first) else None)
        chunks = scores[rows].astype(np.float64)
        means[begin:end] = _sums(np.flatnonzero(kept[rows]), np.cumsum(counts[begin:end]), len(chunks)) @ chunks
    means /= counts[:, None]
    return means


def ranking_metrics(scores: npt.NDArray[np.floating], labels: Bools) -> RankingMetrics:
    """Return the metrics of an evaluation.

    Args:
        scores: Of each clip and class, [N, K].
        labels: True where the clip has the class, [N, K].

    Raises:
        ValueError: Shapes or types do not fit, or a score is not finite.
    """
    from sklearn.metrics import average_precision_score  # slow to import

    resampled = resampled_metrics(scores, labels, np.ones((1, len(scores)), np.int32))
    metrics = RankingMetrics(*(values[0] for values in vars(resampled).values()))
    for k in np.flatnonzero(metrics.positives):
        metrics.average_precision[k] = average_precision_score(labels[:, k], scores[:, k])
    return metrics


def resampled_metrics(
    scores: npt.NDArray[np.floating], labels: Bools, weights: npt.NDArray[np.integer]
) -> RankingMetrics:
    """Return the metrics of each bootstrap replicate: those of the data with clips repeated.

    The means of a replicate leave out classes without a positive in it, so they may average fewer classes than the
    evaluation itself. For average precision, use `bootstrap.interval` with an estimate.

    Args:
        scores: Of each clip and class, [N, K].
        labels: True where the clip has the class, [N, K].
        weights: How often each clip is in each replicate, [B, N]: see `bootstrap.resample`.

    Raises:
        ValueError: Shapes or types do not fit, or a score is not finite.
    """
    if scores.ndim != 2 or labels.shape != scores.shape or weights.shape != (len(weights), len(scores)):
        raise ValueError(f"shapes do not fit: scores {scores.shape}, labels {labels.shape}, weights {weights.shape}")
    if labels.dtype != np.bool_ or weights.dtype.kind not in "iu":
        raise ValueError(f"labels must be boolean and weights integers, not {labels.dtype} and {weights.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError("some scores are not finite")

    by_clip = np.ascontiguousarray(weights.T, np.int32)  # [N, B]
    clips, classes = scores.shape
    positives = np.empty((len(weights), classes), np.int32)
    average_precision, auc = np.empty(positives.shape), np.empty(positives.shape)
    for k in range(classes):
        ranked = rank(scores[:, k], labels[:, k], np.arange(clips), by_clip)
        positives[:, k], average_precision[:, k], auc[:, k] = ranked
    _, micro, _ = rank(scores.ravel(), labels.ravel(), np.repeat(np.arange(clips), classes), by_clip)
    lwlrap = ratio(weights @ _label_precisions(scores, labels), weights @ np.sum(labels, axis=1, dtype=np.int32))
    return RankingMetrics(positives, average_precision, auc, micro, lwlrap)


def d_prime(auc: Floats) -> Floats:
    """Return the distance, in standard deviations, of two normal distributions with this area under the ROC curve."""
    distance: Floats = np.sqrt(2) * ndtri(auc)
    return distance


def rank(scores: npt.NDArray[Any], labels: Bools, clip: npt.NDArray[Any], weights: Ints) -> tuple[Any, Floats, Floats]:
    """Rank entries once, and return positives, average precision and AUC under many weights, each [B].

    Both metrics change only at the score of a positive. The weight of the entries between two of these is a product
    with a sparse matrix of zeros and ones, much faster than cumulative sums over all entries.

    Args:
        scores: Of each entry, [m].
        labels: Of each entry, [m].
        clip: Of each entry, [m]: its row of the weights.
        weights: Of each clip, [N, B].
    """
    replicates = weights.shape[1]
    positives = np.zeros(replicates, np.int64)
    average_precision, auc = np.full(replicates, np.nan), np.full(replicates, np.nan)
    if not labels.any():
        return positives, average_precision, auc

    order = np.argsort(scores)[::-1]
    scores, clip = scores[order], clip[order]
    positive = np.flatnonzero(labels[order])
    # Runs of equal scores with a positive, from `begin` to `end` of the order: the thresholds that matter.
    edges = np.append(run_starts(scores), len(scores))
    run = np.unique(np.searchsorted(edges, positive, "right"))
    begin, end = edges[run - 1], edges[run]
    # The entries above the first run, within it, between it and the next, ..., the rest.
    stops = np.append(np.stack((begin, end), axis=1), len(scores))
    entries = _sums(clip, stops, len(weights))
    labelled = _sums(clip[positive], np.searchsorted(positive, end), len(weights))

    step = max(1, BLOCK_CELLS // len(stops))
    for part in (slice(at, at + step) for at in range(0, replicates, step)):
        new = labelled @ weights[:, part]  # positives in each run, [runs, replicates]
        found = np.cumsum(new, axis=0)
        upto = np.cumsum(entries @ weights[:, part], axis=0)
        above, within, total = upto[:-1:2], upto[1::2], upto[-1]
        positives[part] = found[-1]
        average_precision[part] = ratio(np.sum(new * ratio(found, within, undefined=0.0), axis=0), found[-1])
        # Below a positive are the negatives that are not above its run, and half of those within it.
        below = total - found[-1] - ((above - (found - new)) + (within - found)) / 2
        auc[part] = ratio(np.sum(new * below, axis=0), found[-1] * (total - found[-1]))
    return positives, average_precision, auc


def _sums(column: npt.NDArray[Any], stops: npt.NDArray[Any], columns: int) -> csr_array:
    """Return the matrix whose row i sums the given columns, a list [m], from the previous stop to stop i."""
    column = column[: stops[-1]]
    return csr_array((np.ones(len(column), np.int32), column, np.append(0, stops)), shape=(len(stops), columns))


def _label_precisions(scores: npt.NDArray[Any], labels: Bools) -> Floats:
    """Return the sum of the precisions of each clip's labelled classes, [N]."""
    clip, label = np.nonzero(labels)
    precision = np.empty(len(clip))
    step = max(1, BLOCK_CELLS // max(1, labels.shape[1]))
    for part in (slice(at, at + step) for at in range(0, len(clip), step)):
        rows = clip[part]
        listed = scores[rows] >= scores[rows, label[part], None]
        precision[part] = np.sum(listed & labels[rows], axis=1) / np.sum(listed, axis=1)
    return np.bincount(clip, precision, len(labels)).astype(np.float64)


def _count(values: Floats) -> Ints:
    """Return the number of defined values on the last axis."""
    count: Ints = np.sum(~np.isnan(values), axis=-1, dtype=np.int32)
    return count
