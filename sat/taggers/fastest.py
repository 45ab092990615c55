"""Compare precisions: the speed of a model in each, measured in less than a second."""

import socket
from dataclasses import dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import torch
from satpipe.sat.model.config import AUTO, Cut
from satpipe.sat.taggers.cost import noise_chunks
from satpipe.sat.taggers.interface import LoadedTagger, Tagger

BATCH_S = 0.05  # duration of a batch that is long enough to compare
ROUNDS = 2
HOPELESS = 5.0  # times as slow as fp32: one round is enough
WORTH = 1.1  # times as fast as fp32: less is not worth the rounded scores


@dataclass(frozen=True)
class Comparison:
    """Precisions compared on one machine.

    Attributes:
        speeds: How many times as fast as in fp32 the model is in each precision, except fp32 itself.
        host: Name of the machine.
    """

    speeds: dict[str, float]
    host: str

    @property
    def fastest(self) -> str:
        """The fastest precision; fp32 if no other is clearly faster."""
        best = max(self.speeds, key=self.speeds.__getitem__, default="fp32")
        return best if self.speeds.get(best, 0.0) >= WORTH else "fp32"

    def note(self, asked: str) -> str:
        """Return a note to a user who asked for `auto` or for a precision; "" if there is nothing to say."""
        each = ", ".join(f"{name} is {speed:.2g} times as fast as fp32" for name, speed in self.speeds.items())
        if asked == AUTO:
            return f"--precision auto: {self.fastest}{f' ({each} on {self.host})' if each else ''}"
        return f"{each} on {self.host}: --precision fp32 takes less time" if self.speeds[asked] < 1 else ""


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
    wanted = set(loaded.precisions(device) if asked == AUTO else [asked]) - {"fp32"}
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
