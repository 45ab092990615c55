"""The threshold of a class that reaches a precision, from judged clips."""

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.verify.precision import Estimate, estimate

MIN_CLIPS = 10  # judged at or above a threshold


def threshold_for(
    score: Floats,
    correct: npt.NDArray[np.bool_],
    stratum: npt.NDArray[np.integer],
    weight: Floats,
    wanted: float,
    level: float,
) -> tuple[float, Estimate] | None:
    """Return the lowest threshold at which events have a precision, and the precision of the events that reach it.

    The chance of being correct is taken to rise with the score, or to stay the same: isotonic regression (Barlow et
    al., "Statistical inference under order restrictions", 1972) of the answers on the scores removes what contradicts
    this, which is chance. So one wrong answer among the highest scores does not decide. The precision is reached by the
    answers as they are, too.

    Args:
        score: Of each judged clip, [n].
        correct: Its answer, [n].
        stratum: Its stratum, [n].
        weight: Number of events that it stands for, [n].
        wanted: The precision.
        level: Confidence level.

    Returns:
        None if no threshold with at least `MIN_CLIPS` judged clips at or above it reaches the precision.
    """
    from sklearn.isotonic import IsotonicRegression  # takes long to import

    fitted = IsotonicRegression().fit_transform(score, correct.astype(np.float64), sample_weight=weight)
    order = np.argsort(-score, kind="stable")
    events = np.cumsum(weight[order])
    above = np.minimum(*(np.cumsum((each * weight)[order]) / events for each in (fitted, correct)))
    last = np.append(np.diff(score[order]) != 0, True)  # of equal scores
    clips = np.arange(1, len(score) + 1)
    enough = np.flatnonzero(last & (clips >= MIN_CLIPS) & (above >= wanted - 1e-9))
    if not len(enough):
        return None
    lowest = float(score[order][enough[-1]])
    kept = score >= lowest
    return lowest, estimate(correct[kept], stratum[kept], weight[kept], level)
