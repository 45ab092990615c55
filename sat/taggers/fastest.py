"""Compare precisions: the speed of a model in each, measured in less than a second."""

import socket
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import torch
from satpipe.sat.model.config import AUTO, Cut
from satpipe.sat.model.precision import supported
from satpipe.sat.taggers.comparison import Comparison
from satpipe.sat.taggers.cost import noise_chunks
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.taggers.loaded import LoadedTagger

BATCH_S = 0.05  # duration of a batch that is long enough to compare
ROUNDS = 2
HOPELESS = 5.0  # times as slow as fp32: one round is enough


def compare(
    loaded: LoadedTagger, asked: str, cut: Cut, device: torch.device, batch_chunks: int | None = None
) -> Comparison:
    """Time batches of noise in fp32 and other precisions, in turns.

    Args:
        loaded: The model.
        asked: The precision to compare with fp32; `auto`: all that the model and the device support.
        cut: Chunking mode.
        device: Where the model runs.
        batch_chunks: Chunks in the largest batch; by default the number that suits the model and the device.

    Raises:
        ConfigError: The model or the device does not support the precision.
    """
    one_grid = loaded.adapted()  # a batch has chunks of one grid
    plain = one_grid.tagger(cut, device, "fp32", batch_chunks)
    every = supported(device) if loaded.has_network else []
    wanted = set(every if asked == AUTO else [asked]) - {"fp32"}
    others = {name: one_grid.tagger(cut, device, name, batch_chunks) for name in sorted(wanted)}
    chunks = noise_chunks(plain, 1)
    _seconds(plain, chunks)  # the first batch takes several times as long
    while (fp32_s := _seconds(plain, chunks)) < BATCH_S and len(chunks) < plain.batch_chunks:
        chunks = noise_chunks(plain, min(2 * len(chunks), plain.batch_chunks))
    found = {}
    for name, tagger in others.items():
        other_s = _seconds(tagger, chunks)
        if other_s < HOPELESS * fp32_s:
            times = [_seconds(each, chunks) for each in islice(cycle((plain, tagger)), 2 * ROUNDS)]
            fp32_s, other_s = min(times[::2]), min(times[1::2])
        found[name] = fp32_s / other_s
    return Comparison(found, socket.gethostname())


def _seconds(tagger: Tagger, chunks: list[Any]) -> float:
    begun = perf_counter()
    for _ in tagger.score(enumerate(chunks)):
        pass
    return perf_counter() - begun
