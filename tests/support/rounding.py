"""Tolerances for the rounding errors of float32, on any processor.

Two float32 computations of the same scores differ by their rounding errors. The size of these errors depends on the
input (where one tone is loud, the logarithm amplifies rounding errors in the other bands), on the weights and on the
processor. It is therefore measured: the same computation runs in float64, and another float32 computation may differ
from that result by `FACTOR` times as much as the usual one does. In practice it differs by up to 3 times as much.
"""

from copy import deepcopy
from functools import cache, lru_cache

import torch
from helpers import assert_same_scores, chunk_by_chunk, scores_of_pieces, stream
from satpipe.sat.model.config import MIN_ROWS, Cut
from satpipe.sat.model.network import SAT
from torch import Tensor

FACTOR = 16
SMALLEST_ERROR = 2.0**-22  # of scores from 0 to 1: four units in the last place below 1


def tolerance(usual: Tensor, exact: Tensor) -> float:
    """Return the maximum difference of a float32 result from `exact`, given the result `usual` of the usual one."""
    error = float((usual - exact).detach().abs().max()) if usual.numel() else 0.0
    return FACTOR * max(error, SMALLEST_ERROR)


@lru_cache(maxsize=2)  # the base models take 700 MB each
def in_float64(model: SAT) -> SAT:
    """Return the model with the same weights in float64."""
    return deepcopy(model).double()


def exact_scores(model: SAT, recording: Tensor, cut: Cut = "gapless", start_chunk: int = 0) -> tuple[Tensor, float]:
    """Return the scores [C, 527] of a recording in float64, and the tolerance for float32."""
    exact, _ = chunk_by_chunk(in_float64(model), recording, cut, start_chunk)
    return exact, tolerance(stream(model, recording, cut, start_chunk), exact)


def exact_scores_of_pieces(model: SAT, recording: Tensor, cut: Cut, frames: int, samples: int) -> tuple[Tensor, float]:
    """Return the same for pieces of a recording that are scored alone, see `helpers.scores_of_pieces`."""
    usual, exact = (scores_of_pieces(m, recording, cut, frames, samples) for m in (model, in_float64(model)))
    return exact, tolerance(usual, exact)


@cache
def rows_are_computed_alike() -> bool:
    """Whether products of matrices and Fourier transforms give a row the same bits here whatever is beside it."""
    shapes = [(24, 72), (96, 24), (192, 576), (514, 64), (768, 192)]
    pairs = [(torch.randn(1600, inside), torch.randn(inside, outside)) for inside, outside in shapes]
    alike = [torch.equal(a[:rows] @ b, (a @ b)[:rows]) for a, b in pairs for rows in (MIN_ROWS, 48, 500)]
    frames = torch.randn(100, 512)
    alike += [torch.equal(torch.fft.rfft(frames[:rows]), torch.fft.rfft(frames)[:rows]) for rows in range(1, 20)]
    return all(alike)


def assert_equal(scores: Tensor, expected: Tensor, tolerance: float) -> None:
    """Assert that scores are equal to the last bit, or nearly so if this processor does not compute all rows alike."""
    assert_same_scores(scores, expected, 0.0 if rows_are_computed_alike() else tolerance)


def assert_scores_of(model: SAT, recording: Tensor, scores: Tensor, cut: Cut = "gapless", start_chunk: int = 0) -> None:
    """Assert that `scores` [C, 527] are the model's scores of a recording, up to rounding."""
    assert_same_scores(scores, *exact_scores(model, recording, cut, start_chunk))
