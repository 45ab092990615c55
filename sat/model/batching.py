"""Tag many chunks at once: layer by layer within a recording, side by side across recordings."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

import torch
from satpipe.sat.model.chunk_parallel import consecutive
from satpipe.sat.model.network import SAT, Memory, allows_consecutive
from satpipe.sat.model.streaming import Chunk
from torch import Tensor

Keyed = tuple[Any, Chunk]
Item = TypeVar("Item")
BATCH_CHUNKS = 32  # 1,536 tokens of SAT-2s: more are no faster on a processor
GPU_BATCH_CHUNKS = 256  # enough work to keep a GPU busy; what a block of SAT-B works on takes 0.4 GB in float32


@torch.inference_mode()
def score_chunks(
    model: SAT, chunks: Iterable[Keyed], batch_chunks: int = BATCH_CHUNKS, *, device: torch.device | None = None
) -> Iterator[tuple[Any, Tensor]]:
    """Score chunks of one recording after the other, `batch_chunks` at a time.

    A chunk marked `first` starts with an empty memory, any other with that of the chunk before it in the order given;
    a chunk shorter than the configuration's must be the last of its recording. How many chunks go into a batch, and
    which, changes no score by more than rounding.

    Args:
        model: In evaluation mode.
        chunks: Pairs of a key of the caller's and a chunk, in order.
        batch_chunks: Chunks to run at once; bounds the memory used.
        device: Where the model is.

    Yields:
        The key and the scores [527] (float32, on the CPU) of each chunk, in the order given.
    """
    config = model.config
    run: Callable[[SAT, list[Chunk], Memory | None], tuple[Tensor, Memory | None]] = _one_by_one
    if not config.streaming:
        run = _side_by_side
    elif allows_consecutive(config):
        run = _layer_by_layer
    memory: Memory | None = None
    for batch in batches(chunks, batch_chunks):
        moved = [replace(chunk, log_mel=chunk.log_mel.to(device)) for _, chunk in batch]
        scores, memory = run(model, moved, memory)
        yield from zip((key for key, _ in batch), scores.float().cpu(), strict=True)


def batch_chunks_for(device: torch.device) -> int:
    """How many chunks to run at once on a device."""
    return GPU_BATCH_CHUNKS if device.type == "cuda" else BATCH_CHUNKS


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield items `size` at a time; the last ones may be fewer."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _one_by_one(model: SAT, chunks: list[Chunk], memory: Memory | None) -> tuple[Tensor, Memory | None]:
    scores = []
    for chunk in chunks:
        score, memory = model(chunk.log_mel[None], None if chunk.first else memory)
        scores.append(score)
    return torch.cat(scores), memory


def _side_by_side(model: SAT, chunks: list[Chunk], _: Memory | None) -> tuple[Tensor, None]:
    """Chunks without memory, those of one length together."""
    scores = [torch.empty(0)] * len(chunks)
    for indices in _by_length(chunks, list(range(len(chunks)))):
        together, _ = model(torch.stack([chunks[i].log_mel for i in indices]))
        for i, score in zip(indices, together, strict=True):
            scores[i] = score
    return torch.stack(scores), None


def _layer_by_layer(model: SAT, chunks: list[Chunk], memory: Memory | None) -> tuple[Tensor, Memory | None]:
    """Whole chunks in one pass; then the short last chunks, each with the memory of the chunk before it."""
    whole_frames = model.config.chunk_frames
    whole = [i for i, chunk in enumerate(chunks) if chunk.log_mel.shape[-1] == whole_frames]
    short = [i for i, chunk in enumerate(chunks) if chunk.log_mel.shape[-1] < whole_frames]
    scores = [torch.empty(0)] * len(chunks)
    after: dict[int, Memory] = {} if memory is None else {-1: memory}  # memory after chunk i, where it is wanted
    if whole:
        wanted = sorted({i - 1 for i in short if not chunks[i].first} & set(whole) | {whole[-1]})
        together, kept = consecutive(
            model,
            torch.stack([chunks[i].log_mel for i in whole]),
            None if chunks[whole[0]].first else memory,
            first=[place for place, i in enumerate(whole) if chunks[i].first],
            keep=[whole.index(i) for i in wanted],
        )
        after.update({i: kept.select(k) for k, i in enumerate(wanted)})
        for i, score in zip(whole, together, strict=True):
            scores[i] = score
    for start in (True, False):
        for indices in _by_length(chunks, [i for i in short if chunks[i].first is start]):
            past = None if start else Memory.stack([after[i - 1] for i in indices])
            together, _ = model(torch.stack([chunks[i].log_mel for i in indices]), past)
            for i, score in zip(indices, together, strict=True):
                scores[i] = score
    return torch.stack(scores), after.get(len(chunks) - 1)


def _by_length(chunks: list[Chunk], indices: list[int]) -> Iterator[list[int]]:
    def frames(i: int) -> int:
        return chunks[i].log_mel.shape[-1]

    for _, group in groupby(sorted(indices, key=frames), key=frames):
        yield list(group)
