"""Median filters over the scores of chunks."""

from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Ints, run_starts


def filtered_by_class(clip: Ints, values: npt.NDArray[Any], lengths: Ints) -> npt.NDArray[Any]:
    """Return scores [n, K] after a median filter for each class, see `median_filtered`.

    Args:
        clip: Of each chunk, [n]; the chunks of a clip are adjacent.
        values: Scores, [n, K].
        lengths: Odd number of chunks of the filter of each class, [K]; 1: none.
    """
    if (lengths == 1).all():
        return values
    out = values.copy()
    for length in np.unique(lengths[lengths > 1]).tolist():
        columns = np.flatnonzero(lengths == length)
        out[:, columns] = median_filtered(clip, values[:, columns], length)
    return out


def median_filtered(clip: Ints, values: npt.NDArray[Any], chunks: int) -> npt.NDArray[Any]:
    """Return scores [n, K] with each replaced by the median of itself and its neighbours in the clip.

    At the ends of a clip, its first and last chunk are repeated.

    Args:
        clip: Of each chunk, [n]; the chunks of a clip are adjacent.
        values: Scores, [n, K].
        chunks: Odd number of chunks to take the median of.
    """
    starts = run_starts(clip)
    sizes = np.diff(np.append(starts, len(clip)))
    first, last = np.repeat(starts, sizes), np.repeat(starts + sizes - 1, sizes)
    here = np.arange(len(clip))
    near = [np.clip(here + shift, first, last) for shift in range(-(chunks // 2), chunks // 2 + 1)]
    out = np.empty_like(values)
    for column in range(values.shape[1]):
        out[:, column] = np.median(values[:, column][near], axis=0)
    return out
