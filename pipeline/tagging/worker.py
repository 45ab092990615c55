"""The functions that run on Ray workers: tag spans and publish finished recordings.

The process that submits them also imports this module, and computes nothing: only the functions import torch.
"""

import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from satpipe.pipeline.ray_engine import fetch
from satpipe.pipeline.recordings.probing import deadline
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.batches import Batches, Finished, TableOptions
from satpipe.pipeline.tables.staged import StagedSpan, Staging
from satpipe.pipeline.tagging.spans import Span
from satpipe.sat.model.config import SAMPLE_RATE_HZ, ChunkConfig, Cut
from satpipe.sat.taggers.comparison import Comparison
from satpipe.sat.taggers.loaded import LoadedTagger

if TYPE_CHECKING:
    import torch
    from satpipe.sat.taggers.interface import Tagger

TASK_LIMIT_S = 600.0  # in addition to the length of the task; a worker that takes longer hangs and is ended


@dataclass(frozen=True)
class WorkerOptions:
    """Options of workers.

    Attributes:
        folder: The output folder, path or URL.
        model_id: The model's sha256.
        config: The model's configuration, which may differ from that in its file.
        cut: The chunking mode.
        precision: One of `satpipe.sat.model.precision.PRECISIONS`.
        cuda: True to use a GPU.
        batch_chunks: Chunks per batch; None: the fastest number.
        embedding_size: Number of values of an embedding; 0: only scores are wanted.
    """

    folder: str
    model_id: str
    config: ChunkConfig
    cut: Cut
    precision: str
    cuda: bool
    batch_chunks: int | None = None
    embedding_size: int = 0


def tag_and_stage(
    task: list[Span], options: WorkerOptions, shared: list[Any]
) -> tuple[list[StagedSpan], dict[str, float], str]:
    """Tag a task and stage its scores, and its embeddings if they are wanted.

    Returns:
        The staged spans, the time spent by stage, and the worker: HOST:PROCESS.
    """
    from satpipe.pipeline.tagging.tag_spans import tag_task

    tagger = load_tagger(options, shared)
    # If the header has no length: no format has fewer than 100 bytes per second.
    longest_s = sum(span.recording.info.duration_s or span.recording.source.size_bytes / 100 for span in task)
    chunks = longest_s * SAMPLE_RATE_HZ / options.config.chunk_samples * options.config.grids
    limit_s = TASK_LIMIT_S + longest_s + chunks * tagger.chunk_limit_s
    with deadline(limit_s), Staging(locate(options.folder)).stage(options.embedding_size) as staged:
        outcomes, seconds = tag_task(task, tagger, staged.write)
        return staged.conclude(outcomes), seconds, f"{socket.gethostname()}:{os.getpid()}"


def compare_precisions(shared: list[Any], asked: str, cut: Cut, cuda: bool) -> Comparison:
    """Compare precisions on a worker; the arguments are those of `satpipe.sat.taggers.fastest.compare`.

    Raises:
        ConfigError: The model or the device does not support the precision.
    """
    from satpipe.sat.taggers.fastest import compare

    loaded: LoadedTagger = fetch(shared)
    return compare(loaded, asked, cut, _device(cuda))


def publish(folder: str, batch: list[Finished], options: TableOptions, name: str) -> None:
    """Write finished recordings into the tables; runs on a worker."""
    Batches(locate(folder)).publish(batch, options, name)


_loaded: "dict[WorkerOptions, Tagger]" = {}


def load_tagger(options: WorkerOptions, shared: list[Any]) -> "Tagger":
    """Load the model, once per worker process."""
    key = replace(options, folder="")
    if key not in _loaded:
        checkpoint: LoadedTagger = fetch(shared)
        _loaded.clear()
        _loaded[key] = make_tagger(checkpoint, options)
    return _loaded[key]


def make_tagger(checkpoint: LoadedTagger, options: WorkerOptions) -> "Tagger":
    """Build the model in the requested precision, on the requested device."""
    embeddings = options.embedding_size > 0
    return checkpoint.tagger(
        options.cut, _device(options.cuda), options.precision, options.batch_chunks, embeddings=embeddings
    )


def _device(cuda: bool) -> "torch.device":
    """Return the device of a worker."""
    import torch

    torch.set_num_threads(1)  # there is a worker for each processor
    return torch.device("cuda" if cuda else "cpu")
