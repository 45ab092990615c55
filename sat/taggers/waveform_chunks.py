"""Chunks of waveform, for taggers that score each by itself or keep their own memory."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Chunks(Protocol):
    """Cuts the samples of one recording, which arrive in blocks of any size, into chunks with an `index`."""

    def push(self, samples: Tensor) -> list[Any]:
        """Take samples [n] at the tagger's rate and return the chunks that are now complete."""

    def finish(self) -> list[Any]:
        """End the recording and return the remaining chunks."""


@dataclass(frozen=True)
class WaveformChunk:
    """One chunk of a recording as a waveform.

    Attributes:
        index: Position of the chunk in its recording.
        waveform: [n] samples; the last chunks may be shorter.
        first: True if nothing is carried over from an earlier chunk.
        overlaps: Number of earlier chunks, of other grids, that cover the start of this one.
    """

    index: int
    waveform: Tensor
    first: bool
    overlaps: int = 0


class WaveformChunkStream:
    """Cuts the samples of one recording, which arrive in blocks of any size, into chunks of equal length.

    `hop_samples` is the distance from the start of a chunk to that of the next; a chunk is `grids` times as long.
    """

    def __init__(self, hop_samples: int, start_chunk: int, *, streaming: bool, grids: int = 1) -> None:
        self._hop = hop_samples
        self._start = self._index = start_chunk
        self._streaming = streaming
        self._grids = grids
        self._pending = torch.empty(0)

    def push(self, samples: Tensor) -> list[WaveformChunk]:
        """Take samples [n] and return the chunks that are now complete."""
        self._pending = torch.cat([self._pending, samples])
        starts = range(0, len(self._pending) - self._hop * self._grids + 1, self._hop)
        chunks = [self._chunk(start) for start in starts]
        self._pending = self._pending[len(chunks) * self._hop :].clone()  # frees the samples of finished chunks
        return chunks

    def finish(self) -> list[WaveformChunk]:
        """End the recording and return the chunks that start in the remaining samples; they are shorter."""
        return [self._chunk(start) for start in range(0, len(self._pending), self._hop)]

    def _chunk(self, start: int) -> WaveformChunk:
        earlier = self._index - self._start
        chunk = WaveformChunk(
            self._index,
            self._pending[start : start + self._hop * self._grids],
            first=not self._streaming or earlier < self._grids,
            overlaps=min(earlier, self._grids - 1),
        )
        self._index += 1
        return chunk
