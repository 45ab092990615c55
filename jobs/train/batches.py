"""The batches of each stage, and their augmentation."""

import math
from typing import Any

import numpy as np
import torch
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import Group
from satpipe.pipeline.training_data.feed import Batch, Examples, Feed, labelled_segments, whole_clips
from satpipe.pipeline.training_data.shards import CLIP_S, Shards
from satpipe.pipeline.training_data.teachers import ChunkLabels, Segments, load_teacher
from satpipe.pipeline.training_data.views import Views
from satpipe.sat.errors import TrainingError
from satpipe.sat.model.config import SAMPLE_RATE_HZ, get_config
from satpipe.sat.training import augmentation as augment
from torch import Tensor

CLIP_SAMPLES = round(CLIP_S * SAMPLE_RATE_HZ)


def make_feed(settings: TrainConfig, group: Group) -> Feed | Views:
    """Return this worker's source of batches.

    Raises:
        ConfigError: There are fewer examples than one batch per worker.
        TrainingError: The labelled segments are not as long as the chunks of a sequence.
    """
    shards, config = Shards(settings.data), get_config(settings.arch)
    sizes = {"batch": settings.step_batch, "per_epoch": settings.clips_per_epoch}
    place = {"seed": settings.seed, "rank": group.rank, "world": group.world}
    drawn: dict[str, Any] = {"balance": settings.balance, "floor": settings.frequency_floor}

    def feed(examples: Examples, crop_samples: int = CLIP_SAMPLES) -> Feed:
        return Feed(examples, crop_samples=crop_samples, replacement=settings.replacement, **sizes, **place)

    if settings.stage == "mae":
        return feed(whole_clips(shards, labelled=False))
    if not settings.labels:
        return feed(whole_clips(shards, labelled=True, **drawn))
    segments = Segments(settings.labels, shards)
    examples = labelled_segments(shards, segments, **drawn)
    if settings.stage == "full":
        return feed(examples)
    context_chunks = settings.label_context_chunks if settings.chunk_weight else None
    if settings.teacher:
        return Views(
            examples, load_teacher(settings.teacher, group.device), chunk_frames=config.chunk_frames,
            chunks=settings.sequence_chunks, context_chunks=context_chunks, reuse=settings.reuse, mix=settings.mix,
            join=settings.join, epochs=settings.epochs, device=group.device, **sizes, **place,
        )  # fmt: skip
    samples = _sequence_samples(segments, settings.sequence_chunks, config.chunk_samples)
    if context_chunks is not None:
        chunks = ChunkLabels(
            settings.labels, shards, segments, chunk_s=config.chunk_samples / SAMPLE_RATE_HZ,
            chunks=settings.sequence_chunks, context_chunks=context_chunks,
        )  # fmt: skip
        examples = labelled_segments(shards, segments, chunks=chunks, **drawn)
    return feed(examples, samples)


def _sequence_samples(segments: Segments, chunks: int, chunk_samples: int) -> int:
    """Return the length of the labelled segments in samples."""
    samples = round(segments.segment_s * SAMPLE_RATE_HZ)
    if samples // chunk_samples != chunks:
        raise TrainingError(
            f"the labelled segments last {segments.segment_s:g} s, but the model reads {chunks} chunks of "
            f"{chunk_samples / SAMPLE_RATE_HZ:g} s: make labels with `satpipe psl --piece-s "
            f"{math.ceil(chunks * chunk_samples / SAMPLE_RATE_HZ)}`"
        )
    return samples


def augmented(
    settings: TrainConfig, batch: Batch, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Move a batch to a device and augment it; return inputs and labels."""
    inputs = batch.inputs.to(device)
    labels = None if batch.labels is None else batch.labels.to(device)
    if inputs.ndim == 3:  # log-mel values in dB: a gain is added
        if settings.gain_db:
            inputs = inputs + torch.from_numpy(rng.normal(0, settings.gain_db, (len(inputs), 1, 1))).to(inputs)
        return inputs, labels
    if settings.shift:
        inputs = augment.shift(inputs, rng)
    if settings.gain_db:
        inputs = augment.gain(inputs, rng, settings.gain_db)
    if settings.polarity:
        inputs = augment.polarity(inputs, rng)
    if settings.mixup_alpha and labels is not None:
        inputs, labels = augment.mixup(inputs, labels, rng, settings.mixup_alpha)
    return inputs, labels
