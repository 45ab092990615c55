"""Precision of a class from a stratified sample of its events, with a confidence interval.

The estimate weights each judged clip by the inverse of its chance of being drawn and judged: clips without an answer
count as if they had not been drawn. It is unbiased if what was judged is a random part of each stratum.

The interval is Wilson's score interval (Wilson, "Probable inference, the law of succession, and statistical
inference", 1927) with the effective sample size n* = p(1-p) / v in place of the number of clips, one of the intervals
that Franco, Little, Louis and Slud recommend for weighted samples ("Comparative study of confidence intervals for
proportions in complex sample surveys", Journal of Survey Statistics and Methodology 7(3), 2019). p and the variance v
come from the proportions of the strata, each with one success and one failure added, so that a stratum in which all
clips agree still counts as uncertain. v takes account of the events that are left in each stratum: if all were judged,
nothing is uncertain.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An estimated precision."""

    precision: float
    low: float
    """Lower end of the confidence interval."""
    high: float
    clips: int
    """Number of clips with the answer yes or no."""
    events: float
    """Estimated number of events that the clips stand for."""


def estimate(
    correct: npt.NDArray[np.bool_], stratum: npt.NDArray[np.integer], weight: Floats, level: float
) -> Estimate:
    """Estimate the precision of the events that judged clips stand for.

    Args:
        correct: Answer of each clip, [n], n > 0.
        stratum: Its stratum, [n].
        weight: Number of events that it stands for, [n], equal within a stratum.
        level: Confidence level, such as 0.95.
    """
    _, place = np.unique(stratum, return_inverse=True)
    clips = np.bincount(place)
    yes = np.bincount(place, correct)
    events = np.bincount(place, weight)
    share = events / events.sum()
    precision = float(share @ (yes / clips))
    smooth = (yes + 1) / (clips + 2)
    left = np.maximum(0, 1 - clips / np.maximum(events, clips))  # of each stratum, not judged
    variance = float(share**2 @ (smooth * (1 - smooth) / clips * left))
    middle = float(share @ smooth)
    low, high = precision, precision
    if variance > 0:
        low, high = wilson(precision, middle * (1 - middle) / variance, level)
    return Estimate(precision, low, high, int(clips.sum()), float(events.sum()))


def wilson(share: float, size: float, level: float) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion in a sample of this (effective) size."""
    z = float(ndtri((1 + level) / 2))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
