"""Interleaved grids: a recording is read several times, each time a fraction of a chunk later.

With N grids, the chunks of each grid begin 1/N of a chunk (the *hop*) after those of the grid before, and every grid
has its own memory. The chunks of all grids are counted together, in the order of their starts: chunk k starts k hops
after the recording, belongs to grid k mod N, and has the memory after chunk k - N. Up to N chunks cover each stretch of
a hop, the last of which is the one that starts with it. So there are as many stretches as chunks, and stretch k has its
score as soon as chunk k has.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from satpipe.sat.model.config import ChunkConfig, Combine
from satpipe.sat.model.outputs import join, split
from torch import Tensor

Keyed = tuple[Any, Any]
"""A key chosen by the caller, and a chunk with `index` and `overlaps`."""
Score = Callable[[Iterable[Keyed]], Iterator[tuple[Any, Tensor]]]
"""Yields the key and the outputs (`satpipe.sat.model.outputs`) of each chunk."""
SMALLEST = 2.0**-24
"""The smallest positive number of half precision, in which scores are written."""


def combined(scores: Tensor, combine: Combine = "geometric") -> Tensor:
    """Return the scores of a stretch from those, p_1 to p_K, of the K chunks that cover it.

        geometric = exp(mean over k of ln(max(p_k, 2^-24)))
        sharp = sqrt(geometric * max(min p_k, 2^-24))

    limited to the range from min p_k to max p_k. A score that half precision rounds to 0 counts as its smallest number,
    so that a single chunk cannot rule out a class. Because of the limits, equal scores give the same score to the last
    bit.

    Shape:
        [K, classes] in 0 to 1 -> [classes], float32
    """
    scores = scores.float()
    lowest = scores.amin(0)
    logs = scores.clamp_min(SMALLEST).log()
    mean = logs.mean(0)
    if combine == "sharp":
        mean = (mean + logs.amin(0)) / 2
    return mean.exp().clamp(lowest, scores.amax(0))


class Stretches:
    """Turns the outputs for the chunks of one recording, in order, into those for its stretches.

    Attributes:
        recent: Outputs [527 + D] for the latest chunks, at most one less than there are grids.
    """

    def __init__(self, config: ChunkConfig) -> None:
        self.recent: deque[Tensor] = deque(maxlen=config.grids - 1)
        self._combine = config.combine

    def add(self, outputs: Tensor, overlaps: int) -> Tensor:
        """Take the outputs for a chunk and return those for the stretch that starts with it.

        Args:
            outputs: [527 + D].
            overlaps: Number of earlier chunks that cover the stretch, as in `Chunk`.

        Returns:
            The combined scores and the mean of the embeddings.
        """
        covering = [*islice(self.recent, len(self.recent) - overlaps, None), outputs]
        self.recent.append(outputs)
        if not overlaps:
            return outputs
        scores, embeddings = split(torch.stack(covering))
        return join(combined(scores, self._combine), embeddings.float().mean(0))


def score_stretches(score: Score, chunks: Iterable[Keyed], config: ChunkConfig) -> Iterator[tuple[Any, Tensor]]:
    """Score the stretches of one recording after another.

    Args:
        score: Scores consecutive chunks; called once for each grid.
        chunks: Pairs of a key and a chunk of any grid, in order.
        config: Of the tagger.

    Yields:
        The key of each chunk and the outputs for the stretch that starts with it, in the order given.
    """
    stretches = Stretches(config)
    for (key, chunk), scores in score_grids(score, chunks, config.grids):
        yield key, stretches.add(scores, chunk.overlaps)


def score_grids(score: Score, chunks: Iterable[Keyed], grids: int) -> Iterator[tuple[Keyed, Tensor]]:
    """Score the chunks of all grids, those of each in batches of their own.

    Args:
        score: Scores consecutive chunks; called once for each grid.
        chunks: Pairs of a key and a chunk of any grid, in order.
        grids: Number of grids.

    Yields:
        The pairs in the order given, each with the outputs for its chunk.
    """
    source = iter(chunks)
    waiting: list[deque[Keyed]] = [deque() for _ in range(grids)]
    unscored: deque[Keyed] = deque()

    def read() -> bool:
        for pair in islice(source, 1):
            waiting[pair[1].index % grids].append(pair)
            unscored.append(pair)
            return True
        return False

    def of_grid(grid: int) -> Iterator[Keyed]:
        while waiting[grid] or read():
            if waiting[grid]:
                yield waiting[grid].popleft()

    scored = [score(of_grid(grid)) for grid in range(grids)]
    while unscored or read():
        pair = unscored.popleft()
        _, scores = next(scored[pair[1].index % grids])
        yield pair, scores
