"""Tag many chunks per batch: layer by layer within a recording, in parallel across recordings."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

import torch
from satpipe.sat.model.chunk_parallel import consecutive
from satpipe.sat.model.network import SAT, Memory, allows_consecutive
from satpipe.sat.model.outputs import join
from satpipe.sat.model.streaming import Chunk
from torch import Tensor

Keyed = tuple[Any, Chunk]
Item = TypeVar("Item")
BATCH_CHUNKS = 32  # 1,536 tokens of SAT-2s; larger batches gain nothing on a CPU
GPU_BATCH_CHUNKS = 256  # keeps a GPU busy; a block of SAT-B needs 0.4 GB for them in float32


@torch.inference_mode()
def score_chunks(
    model: SAT,
    chunks: Iterable[Keyed],
    batch_chunks: int = BATCH_CHUNKS,
    *,
    device: torch.device | None = None,
    embeddings: bool = False,
) -> Iterator[tuple[Any, Tensor]]:
    """Score the chunks of one recording after another, `batch_chunks` per batch.

    A chunk marked `first` starts with an empty memory, any other with the memory after the previous chunk. A chunk
    that is shorter than the configuration's must be the last of its recording. The composition of batches does not
    change scores, see `satpipe.sat.model.config.MIN_ROWS`; on some devices, and in half precision, by rounding only.

    Args:
        model: In evaluation mode.
        chunks: Pairs of a key chosen by the caller and a chunk, in order.
        batch_chunks: Chunks per batch; limits the memory used.
        device: Device of the model.
        embeddings: Also give the embedding of each chunk, after its scores (`satpipe.sat.model.outputs`).

    Yields:
        The key and the scores [527], or outputs [527 + D], of each chunk (float32, on the CPU), in the order given.
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
        embedded, memory = run(model, moved, memory)
        scores = model.scores(embedded).float()
        outputs = join(scores, embedded) if embeddings else scores
        yield from zip((key for key, _ in batch), outputs.cpu(), strict=True)


def batch_chunks_for(device: torch.device) -> int:
    """Return the number of chunks per batch that suits a device."""
    return GPU_BATCH_CHUNKS if device.type == "cuda" else BATCH_CHUNKS


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _one_by_one(model: SAT, chunks: list[Chunk], memory: Memory | None) -> tuple[Tensor, Memory | None]:
    embedded = []
    for chunk in chunks:
        embedding, memory = model.embeddings(chunk.log_mel[None], None if chunk.first else memory)
        embedded.append(embedding)
    return torch.cat(embedded), memory


def _side_by_side(model: SAT, chunks: list[Chunk], _: Memory | None) -> tuple[Tensor, None]:
    """Read chunks without memory, those of equal length in one pass."""
    embedded = [torch.empty(0)] * len(chunks)
    for indices in _by_length(chunks, list(range(len(chunks)))):
        together, _ = model.embeddings(torch.stack([chunks[i].log_mel for i in indices]))
        for i, embedding in zip(indices, together, strict=True):
            embedded[i] = embedding
    return torch.stack(embedded), None


def _layer_by_layer(model: SAT, chunks: list[Chunk], memory: Memory | None) -> tuple[Tensor, Memory | None]:
    """Read whole chunks in one pass, then the short last chunks, each with the memory after the previous chunk."""
    whole_frames = model.config.chunk_frames
    whole = [i for i, chunk in enumerate(chunks) if chunk.log_mel.shape[-1] == whole_frames]
    short = [i for i, chunk in enumerate(chunks) if chunk.log_mel.shape[-1] < whole_frames]
    embedded = [torch.empty(0)] * len(chunks)
    after: dict[int, Memory] = {} if memory is None else {-1: memory}  # memory after chunk i, where needed
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
        for i, embedding in zip(whole, together, strict=True):
            embedded[i] = embedding
    for start in (True, False):
        for indices in _by_length(chunks, [i for i in short if chunks[i].first is start]):
            past = None if start else Memory.stack([after[i - 1] for i in indices])
            together, _ = model.embeddings(torch.stack([chunks[i].log_mel for i in indices]), past)
            for i, embedding in zip(indices, together, strict=True):
                embedded[i] = embedding
    return torch.stack(embedded), after.get(len(chunks) - 1)


def _by_length(chunks: list[Chunk], indices: list[int]) -> Iterator[list[int]]:
    def frames(i: int) -> int:
        return chunks[i].log_mel.shape[-1]

    for _, group in groupby(sorted(indices, key=frames), key=frames):
        yield list(group)
