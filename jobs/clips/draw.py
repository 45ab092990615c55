"""Draw the events, or other stretches, of which clips are cut.

`top` takes the highest scores of each class, which say nothing about the rest. `stratified`
divides the range of scores of a class into parts of equal width and draws the same number from each part at random, so
that each stretch has a known chance of being drawn, and low scores, which are many, do not crowd out high ones, which
decide on a threshold.
"""

import zlib

import numpy as np
import numpy.typing as npt
import pandas as pd
from satpipe.jobs.ground_truth.sheet import TOP

STRATA = 5
CLIPS_PER_STRATUM = 4  # at least, or there are fewer strata
_Ints = npt.NDArray[np.int64]


def draw(found: pd.DataFrame, per_class: int, sample: str, seed: int) -> pd.DataFrame:
    """Draw stretches of each class; what is drawn of one class does not depend on the others.

    Args:
        found: Columns recording, start_s, end_s, label, mid and score (NaN if unknown).
        per_class: Maximum number of each class.
        sample: `top` or `stratified`.
        seed: Of the random draw.

    Returns:
        The rows that were drawn, by label and falling score, with the columns `stratum` (from 1, the lowest scores, on,
        or `TOP`), `probability` of being drawn (NaN for `TOP`) and `of` (number of stretches of the class).
    """
    drawn = []
    for (label, mid), rows in found.groupby(["label", "mid"], sort=True, observed=True):
        ordered = rows.sort_values(["score", "recording", "start_s", "end_s"], ascending=[False, True, True, True])
        if sample == TOP:
            chosen = ordered.head(per_class).assign(stratum=TOP, probability=np.nan)
        else:
            random = np.random.default_rng([seed, zlib.crc32(f"{mid} {label}".encode())])
            chosen = _stratified(ordered, per_class, random)
        drawn.append(chosen.assign(of=len(rows)))
    return pd.concat(drawn, ignore_index=True)


def _stratified(rows: pd.DataFrame, wanted: int, random: np.random.Generator) -> pd.DataFrame:
    stratum = strata(rows["score"].to_numpy(np.float64), min(STRATA, max(1, wanted // CLIPS_PER_STRATUM)))
    sizes = np.bincount(stratum)
    numbers = allocated(sizes, wanted)
    places = [
        np.sort(random.choice(np.flatnonzero(stratum == each), number, replace=False))
        for each, number in enumerate(numbers.tolist())
        if number
    ]
    place = np.sort(np.concatenate(places))
    here = stratum[place]
    return rows.iloc[place].assign(stratum=(here + 1).astype(str), probability=numbers[here] / sizes[here])


def strata(score: npt.NDArray[np.float64], number: int) -> _Ints:
    """Return the stratum of each score [n], from 0 on: parts of the range of scores with equal width."""
    if np.isnan(score).any() or score.min() == score.max():
        return np.zeros(len(score), np.int64)
    edges = np.linspace(score.min(), score.max(), number + 1)[1:-1]
    return np.searchsorted(edges, score, side="right")


def allocated(sizes: _Ints, wanted: int) -> _Ints:
    """Return how many to draw from strata with these sizes: equally many from each, as far as they have so many."""
    given = np.zeros_like(sizes)
    left = min(wanted, int(sizes.sum()))
    while left:
        open_ = np.flatnonzero(given < sizes)[::-1][:left]  # the last ones are drawn from the highest scores
        given[open_] += np.minimum(max(1, left // len(open_)), (sizes - given)[open_])
        left = min(wanted, int(sizes.sum())) - int(given.sum())
    return given
