"""The work that runs on a Ray worker: tagging spans and publishing finished recordings."""

import os
import socket
from dataclasses import dataclass, replace
from typing import Any

import torch
from satpipe.pipeline.ray_engine import fetch
from satpipe.pipeline.recordings.probing import deadline
from satpipe.pipeline.tables.output_folder import Finished, Output, TableOptions
from satpipe.pipeline.tables.staged import StagedSpan
from satpipe.pipeline.tagging.spans import Span
from satpipe.pipeline.tagging.tag_spans import tag_unit
from satpipe.sat.model.config import SAMPLE_RATE_HZ, ChunkConfig
from satpipe.sat.model.streaming import Cut
from satpipe.sat.taggers.interface import LoadedTagger, Tagger

UNIT_LIMIT_S = 600.0  # for a unit, besides as long as it plays; a worker that takes longer hangs, and is ended


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs to know besides its unit.

    Attributes:
        folder: The output folder, path or URL.
        model_id: The model's sha256.
        config: Its configuration, which may be another than its file's.
        cut: How recordings are cut.
        precision: One of `satpipe.sat.model.precision.PRECISIONS`.
        cuda: Whether to use a GPU.
        batch_chunks: Chunks to run at once; None: as many as are quickest.
    """

    folder: str
    model_id: str
    config: ChunkConfig
    cut: Cut
    precision: str
    cuda: bool
    batch_chunks: int | None = None


def tag_and_stage(
    unit: list[Span], options: WorkerOptions, shared: list[Any]
) -> tuple[list[StagedSpan], dict[str, float], str]:
    """Tag a unit and put its scores into the output folder; runs on a worker, and says which."""
    tagger = load_tagger(options, shared)
    # A header that does not tell the length: no format has fewer than 100 bytes a second.
    longest_s = sum(span.recording.info.duration_s or span.recording.source.size_bytes / 100 for span in unit)
    chunks = longest_s * SAMPLE_RATE_HZ / options.config.chunk_samples
    limit_s = UNIT_LIMIT_S + longest_s + chunks * tagger.chunk_limit_s
    with deadline(limit_s), Output(options.folder).stage() as staged:
        outcomes, seconds = tag_unit(unit, tagger, staged.write)
        return staged.conclude(outcomes), seconds, f"{socket.gethostname()}:{os.getpid()}"


def publish(folder: str, batch: list[Finished], options: TableOptions, name: str) -> None:
    """Write finished recordings into the tables; runs on a worker."""
    Output(folder).publish(batch, options, name)


_loaded: dict[WorkerOptions, Tagger] = {}


def load_tagger(options: WorkerOptions, shared: list[Any]) -> Tagger:
    """Make the model ready, once in each worker process."""
    key = replace(options, folder="")
    if key not in _loaded:
        checkpoint: LoadedTagger = fetch(shared)
        _loaded.clear()
        _loaded[key] = make_tagger(checkpoint, options)
    return _loaded[key]


def make_tagger(checkpoint: LoadedTagger, options: WorkerOptions) -> Tagger:
    """Build the model in the precision and on the device asked for."""
    torch.set_num_threads(1)  # workers are as many as processors
    device = torch.device("cuda" if options.cuda else "cpu")
    return checkpoint.tagger(options.cut, device, options.precision, options.batch_chunks)
