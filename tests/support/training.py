"""Small training sets, made without Ray, and a worker that trains alone."""

from pathlib import Path
from typing import Any

import soundfile
import torch
from helpers import model_by_rule, sound
from satpipe.jobs.train.group import STATE, Group, RayGroup
from satpipe.pipeline.training_data.listing import list_clips
from satpipe.pipeline.training_data.shards import Shards, ShardWriter, write_shard
from satpipe.pipeline.training_data.teachers import SegmentOptions, Segments, label_shard
from satpipe.sat.model.config import get_config
from satpipe.sat.weights.published import save
from torch import nn


def make_clips(folder: Path, count: int = 12, seconds: float = 5.0) -> Path:
    """Write sounds of different lengths and rates."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rate_hz = (16_000, 44_100, 32_000)[number % 3]
        samples = sound(int(rate_hz * (seconds + number % 4)), number).numpy()
        soundfile.write(folder / f"{number:03}.flac", samples.clip(-1, 1), rate_hz)
    return folder


def write_all(folder: Path, out: Path, clips_per_shard: int = 5, table: Path | None = None) -> Shards:
    writer = ShardWriter(out, list_clips(str(folder), table), clips_per_shard)
    for shard in writer.missing():
        write_shard(writer.shards[shard], writer.location(shard))
    return Shards(out)


OVERLAPPING = SegmentOptions(hop_s=2.0)


def write_teacher(path: Path) -> Path:
    """Write the weights of a small full-context model."""
    save(model_by_rule(get_config("audiotransformer_tiny")), path)
    return path


def write_labels(shards: Shards, out: Path, teacher: Path, options: SegmentOptions = OVERLAPPING) -> Segments:
    out.mkdir()
    for shard in range(len(shards.files)):
        location = out / f"psl-{shard:05d}-of-{len(shards.files):05d}.parquet"
        label_shard(shards.folder, shard, str(teacher), options, location)
    return Segments(out, shards)


class Alone(RayGroup):
    """A group of one worker, whose checkpoints go to numbered folders."""

    def __init__(self, folder: Path) -> None:
        Group.__init__(self)
        self.folder, self.checkpoints = folder, []
        self.metrics: list[dict[str, Any]] = []

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def restored(self) -> None:
        return None

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        self.metrics.append(metrics)
        self.checkpoints.append(self.folder / str(len(self.checkpoints)))
        self.checkpoints[-1].mkdir(parents=True)
        torch.save(state, self.checkpoints[-1] / STATE)
