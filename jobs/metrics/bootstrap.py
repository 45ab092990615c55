"""Bootstrap: how far a figure would move with another sample of recordings.

Recordings are drawn with replacement, as many as there are, and the figure is computed anew (Efron, "Bootstrap
methods: another look at the jackknife", Annals of Statistics 7(1), 1979). A replicate is written as how often each
recording was drawn, so that figures made of counts need one product for all replicates: `weights @ counts`.
"""

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Floats, Ints


def resample(n: int, replicates: int, seed: int, group: npt.NDArray[np.integer] | None = None) -> Ints:
    """Return how often each item is in each replicate, [replicates, n].

    The first replicates are the same however many are asked for.

    Args:
        n: Number of items.
        replicates: Number of replicates.
        seed: The same seed gives the same replicates.
        group: What each item belongs to, any numbers [n]: groups are drawn, as many as there are, each with all its
            items, where items of one group (the clips of one recording) are not independent. Without it each item is
            drawn for itself, and every row adds up to n.
    """
    member = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1]
    if member.shape != (n,):
        raise ValueError(f"{n} items, but a group for each of {member.shape}")
    weights = np.zeros((replicates, n), np.int32)
    if n:
        groups = int(member.max()) + 1
        generator = np.random.default_rng(seed)
        for row in weights:
            row[:] = np.bincount(generator.integers(groups, size=groups), minlength=groups)[member]
    return weights


def interval(values: Floats, level: float = 0.95, estimate: float | None = None) -> tuple[float, float]:
    """Return the percentile interval of a figure.

    See Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. With an estimate it is mirrored at
    the estimate, which makes it the basic interval (Davison and Hinkley, "Bootstrap Methods and their Application",
    1997, section 5.2). That is the one for average precision: a positive counts itself among those found at its rank,
    which lifts the figure of a small sample, and one that is drawn twice counts itself twice. So the percentile
    interval lies too high, with many rare classes wholly above the estimate.

    Nothing is interpolated: the limits are values of replicates, those at the percentiles or next outside of them.

    Args:
        values: Of each replicate, [B]. NaN, a figure that a replicate leaves undefined, is left out.
        level: Probability that the interval is to hold the figure with.
        estimate: The figure of the data itself.

    Returns:
        Low and high; NaN if no value is defined.
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
