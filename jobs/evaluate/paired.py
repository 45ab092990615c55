"""Paired comparison of two results: whether one is better on the same recordings.

Both bootstraps drew the same recordings in each sample, so the difference of a figure within a sample does not vary
with how hard the recordings are (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 16).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from satpipe.jobs.evaluate.result import EvaluationResult
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.bootstrap import interval

_SAME = ("bootstrap", "seed", "bootstrap_by")


@dataclass(frozen=True)
class Paired:
    """Difference of a figure between two results, the second less the first."""

    low: float
    """Limits of its interval, at the level of the first result."""
    high: float
    p: float
    """Two-sided p-value of no difference: twice the share of samples on the other side of 0, at most 1."""


def paired(
    first: EvaluationResult, second: EvaluationResult, samples: tuple[pa.Table, pa.Table]
) -> dict[tuple[str, str], Paired]:
    """Return the difference of each figure by name and average; none if the samples are not of the same recordings.

    Args:
        first: A result.
        second: Another, which `compare` accepted.
        samples: Their bootstrap samples, as `read_samples` returns them.
    """
    if any(first["options"].get(key) != second["options"].get(key) for key in _SAME):
        return {}
    left, right = map(_by_figure, samples)
    found = {}
    for key in left.keys() & right.keys():
        if len(left[key]) == len(right[key]):
            difference = right[key] - left[key]
            difference = difference[~np.isnan(difference)]
            if len(difference):
                low, high = interval(difference, first["options"]["level"])
                sides = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
                found[key] = Paired(low, high, min(1.0, 2 * (sides + 1) / (len(difference) + 1)))
    return found


def _by_figure(samples: pa.Table) -> dict[tuple[str, str], Floats]:
    rows = zip(*(samples[name].to_pylist() for name in ("name", "average", "values")), strict=True)
    return {(name, average): np.array(values, np.float64) for name, average, values in rows}
