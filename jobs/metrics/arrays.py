"""Array types and operations that several metrics share."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def ratio(over: Any, under: Any, undefined: float = np.nan) -> Floats:
    """Return `over / under` element by element, `undefined` where the divisor is zero."""
    quotient: Floats = np.full(np.shape(under), undefined, np.float64)
    np.divide(over, under, out=quotient, where=under != 0)
    return quotient


def mean(values: Floats, weights: npt.NDArray[Any] | None = None) -> Floats:
    """Return the (weighted) mean over the last axis of the values that are not NaN; NaN if all are."""
    weights = ~np.isnan(values) * (1 if weights is None else weights)
    return ratio(np.sum(np.nan_to_num(values) * weights, axis=-1), np.sum(weights, axis=-1))


def repeats(counts: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    """Return index and position of each repetition: 0 0 0 1 2 2 and 0 1 2 0 0 1 for counts 3 1 2."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - (np.cumsum(counts) - counts)[index]


def run_starts(*columns: npt.NDArray[Any]) -> Rows:
    """Return the first position of each run of equal rows; columns [n] each."""
    changed = np.ones(len(columns[0]), bool)
    changed[1:] = np.logical_or.reduce([np.diff(column) != 0 for column in columns])
    return np.flatnonzero(changed)


def blocks(sizes: npt.NDArray[Any], limit: int) -> list[Rows]:
    """Split items, by position, into consecutive blocks of about `limit` in total size each."""
    return np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(np.cumsum(sizes) // limit)) + 1)
