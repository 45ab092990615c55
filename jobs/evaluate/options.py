"""What there is to choose."""

from dataclasses import dataclass
from pathlib import Path

from satpipe.jobs.ground_truth import Unknown


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `satpipe evaluate`, as on its command line."""

    weak: str | Path | None = None
    strong: str | Path | None = None
    mapping: str | Path | None = None
    classes: str = "381"
    unknown: Unknown = "error"
    threshold: str = "0.5"
    tune: str | Path | None = None
    segment_s: float | None = None
    collar_s: float = 0.2
    offset_fraction: float = 0.5
    median_filter: int = 1
    min_s: float = 0.0
    psds_thresholds: int = 50
    bootstrap: int = 200
    level: float = 0.95
    seed: int = 0
