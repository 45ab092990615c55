"""Options of `satpipe tag`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from satpipe.pipeline.recordings.deployments import GAP_S
from satpipe.pipeline.tagging.spans import SPAN_S
from satpipe.sat.model.streaming import Cut
from satpipe.sat.weights.hub import BUNDLED


@dataclass(frozen=True)
class TagOptions:
    """Options of `satpipe tag`, as on its command line."""

    inputs: tuple[str, ...]
    out: str | Path
    model: str = BUNDLED
    arch: str | None = None
    cut: Cut = "gapless"
    memory: Literal["on", "off"] = "on"
    delay_s: float | None = None
    threshold: float = 0.1
    top_k: int = 10
    scores: bool = True
    channels: str = "mix"
    workers: int | None = None
    address: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    span_s: float = SPAN_S
    max_batch_memory: str | None = None
    overwrite: bool = False
    prune: bool = False
    retry_failed: bool = False
    time_zone: str | None = None
    time_pattern: str | None = None
    times: str | Path | None = None
    clock_marks: str | Path | None = None
    join: bool = False
    join_gap_s: float = GAP_S
