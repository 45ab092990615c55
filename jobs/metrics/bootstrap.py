"""Bootstrap: how much a metric would vary with other samples of recordings.

Recordings are drawn with replacement, as many as there are, and the metric is computed again (Efron, "Bootstrap
methods: another look at the jackknife", Annals of Statistics 7(1), 1979). A replicate is represented by how often each
recording was drawn, so metrics of counts need one product for all replicates: `weights @ counts`.
"""

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats, Ints


def resample(n: int, replicates: int, seed: int, group: npt.NDArray[np.integer] | None = None) -> Ints:
    """Return how often each of n items is in each replicate, [replicates, n].

    The first replicates do not depend on the number of replicates. Without groups every row adds up to n.

    Args:
        n: Number of items.
        replicates: Number of replicates.
        seed: Random seed.
        group: Group number of each item [n], where items of a group (the clips of one recording) are not independent:
            whole groups are drawn, as many as there are.

    Raises:
        ValueError: `group` does not have n values.
    """
    member = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1]
    if member.shape != (n,):
        raise ValueError(f"{n} items need {n} group numbers, not {member.shape}")
    weights = np.zeros((replicates, n), np.int32)
    if n:
        generator = np.random.default_rng(seed)
        groups = int(member.max()) + 1
        for row in weights:
            row[:] = np.bincount(generator.integers(groups, size=groups), minlength=groups)[member]
    return weights


def interval(values: Floats, level: float = 0.95, estimate: float | None = None) -> tuple[float, float]:
    """Return the percentile interval of a metric, or the basic interval if an estimate is given.

    Percentile: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. Basic, which mirrors it at
    the estimate: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2. Average precision
    needs the basic interval: a positive counts itself among those ranked at least as high, which raises the metric of a
    small sample, and a positive that is drawn twice counts twice. So the percentile interval is too high, with many
    rare classes entirely above the estimate.

    The limits are values of replicates, at the percentiles or the next value outside; nothing is interpolated.

    Args:
        values: Of each replicate, [B]. NaN marks a replicate in which the metric is undefined; it is left out.
        level: Probability that the interval contains the metric, between 0 and 1.
        estimate: The metric of the data itself.

    Returns:
        Low and high; NaN if no value is defined.

    Raises:
        ValueError: The level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level between 0 and 1, not {level}")
    defined = values[~np.isnan(values)]
    if not len(defined):
        return np.nan, np.nan
    tail = (1 - level) / 2
    low = float(np.quantile(defined, tail, method="lower"))
    high = float(np.quantile(defined, 1 - tail, method="higher"))
    return (low, high) if estimate is None else (2 * estimate - high, 2 * estimate - low)
