"""Tag several streams online, with their chunks in one batch."""

from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from satpipe.sat.model.config import Cut
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.grids import Stretches
from satpipe.sat.model.network import SAT, Memory
from satpipe.sat.model.outputs import join, split
from satpipe.sat.model.streaming import Chunk, ChunkStream, no_memories
from torch import Tensor

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Scored(Generic[Key]):
    """Scores of one chunk or, with several grids, of the stretch that starts with it.

    Attributes:
        stream: Key under which the samples were pushed.
        index: Position of the chunk in its recording.
        scores: [527], float32, on the CPU.
        embedding: [D], float32, on the CPU; D is 0 unless embeddings are wanted.
    """

    stream: Key
    index: int
    scores: Tensor
    embedding: Tensor


@dataclass
class _Stream:
    """One stream: its recording, the waiting chunks, the memory of each grid, and the scores of the last chunks."""

    memories: deque[Memory | None]
    stretches: Stretches
    chunks: ChunkStream | None = None
    ready: deque[Chunk] = field(default_factory=deque)


class BatchTagger(Generic[Key]):
    """Tags any number of streams at once; the scores are those of a `StreamingTagger` per stream, up to rounding.

    Keys identify streams, which start with their first samples. Streams need not be synchronous: a batch contains the
    chunks that are ready, at most one per stream, since the next chunk needs the memory after it.

    Example:
        >>> from satpipe.sat.model.config import get_config
        >>> tagger = BatchTagger(SAT(get_config("SAT_T_2s")).eval())
        >>> for key in ("garden", "street"):
        ...     tagger.push(key, torch.zeros(40_000))  # 2.5 s at 16 kHz
        >>> [(scored.stream, scored.index) for scored in tagger.step()]
        [('garden', 0), ('street', 0)]
    """

    def __init__(self, model: SAT, cut: Cut = "gapless", *, embeddings: bool = False) -> None:
        self.model = model
        self.cut: Cut = cut
        self._embeddings = embeddings
        self._log_mel = LogMel()
        self._streams: dict[Key, _Stream] = {}

    def push(self, stream: Key, samples: Tensor) -> None:
        """Take samples [n] at 16 kHz; the chunks that they complete wait for `step`.

        Raises:
            ValueError: The samples are not a floating-point vector.
        """
        config = self.model.config
        state = self._streams.setdefault(stream, _Stream(no_memories(config), Stretches(config)))
        if state.chunks is None:
            state.chunks = ChunkStream(self._log_mel, config, self.cut)
        state.ready += state.chunks.push(samples)

    def finish(self, stream: Key) -> None:
        """End the stream's recording; its remaining chunks wait for `step`. Later samples start another recording."""
        state = self._streams.get(stream)
        if state and state.chunks:
            state.ready += state.chunks.finish()
            state.chunks = None

    def waits(self, stream: Key) -> bool:
        """Return True if a chunk of the stream waits for `step`."""
        state = self._streams.get(stream)
        return bool(state and state.ready)

    @torch.inference_mode()
    def step(self) -> list[Scored[Key]]:
        """Score the oldest waiting chunk of each stream, in one batch if lengths and memories allow it."""
        batches: dict[tuple[int, int], list[tuple[Key, Chunk, Memory | None]]] = defaultdict(list)
        for key, state in self._streams.items():
            if state.ready:
                chunk, memory = state.ready.popleft(), state.memories.popleft()
                memory = None if chunk.first else memory
                tokens = memory.blocks[0].shape[1] if memory else 0
                batches[chunk.log_mel.shape[-1], tokens].append((key, chunk, memory))
        scored = [row for batch in batches.values() for row in self._score(batch)]
        self._forget()
        return scored

    def _score(self, batch: list[tuple[Key, Chunk, Memory | None]]) -> list[Scored[Key]]:
        memories = [memory for _, _, memory in batch if memory]
        log_mel = torch.stack([chunk.log_mel for _, chunk, _ in batch])
        embedded, left = self.model.embeddings(log_mel, Memory.stack(memories) if memories else None)
        scores = self.model.scores(embedded).float()
        outputs = join(scores, embedded) if self._embeddings else scores
        rows = []
        for place, ((key, chunk, _), row) in enumerate(zip(batch, outputs, strict=True)):
            state = self._streams[key]
            # A copy, since a view would keep the memories of the whole batch alive while one stream is idle.
            state.memories.append(Memory([b.clone() for b in left.select(place).blocks]) if left else None)
            if chunk.index >= 0:
                rows.append(Scored(key, chunk.index, *split(state.stretches.add(row, chunk.overlaps))))
        return rows

    def _forget(self) -> None:
        """Delete streams that have ended."""
        ended = [key for key, state in self._streams.items() if not state.chunks and not state.ready]
        for key in ended:
            del self._streams[key]
