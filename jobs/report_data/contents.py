"""The content of a report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.report_data.grid import Grid
from satpipe.jobs.report_data.moments import Moment
from satpipe.pipeline.tables.targets import Target

SCORE_STEPS = 200  # per unit of score, so that thresholds in steps of 0.005 are exact
NOT_TAGGED = 255  # in place of a score: a part of a recording without chunks
SHARE_STEPS = 255


@dataclass(frozen=True)
class LabelTotal:
    """Total time and highest score of a class or group."""

    target: Target
    duration_s: tuple[float, ...]
    """Total length of the chunks that reach each level, [L]."""
    peak: float
    """Highest score."""
    group: int | None = None
    """Position in `ReportData.labels` of the group that the class is shown in; None: it is shown by itself."""

    @property
    def name(self) -> str:
        """Name of the class or group."""
        return self.target.label


@dataclass(frozen=True, eq=False)
class Detail:
    """One recording over time."""

    recording: str
    status: str
    duration_s: float
    time: np.datetime64
    """Start in local time; NaT if unknown."""
    labels: tuple[int, ...]
    """The labels with its highest scores, positions in `ReportData.labels`, [k]."""
    scores: npt.NDArray[np.uint8]
    """Highest score of each label in parts of equal length, in `SCORE_STEPS`, or `NOT_TAGGED`, [k, parts]."""


@dataclass(frozen=True)
class Problem:
    """A recording that was not tagged from start to end."""

    recording: str
    status: str
    reason: str


@dataclass(frozen=True)
class Warned:
    """A recording with warnings: irregularities that did not prevent tagging."""

    recording: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ReportData:
    """An overview of an output folder."""

    out: str
    run: dict[str, Any]
    """Content of `run.json`."""
    model: dict[str, Any]
    """The model and options behind the scores, see `Tables.model`."""
    threshold: float
    time_zone: str
    zone_source: str
    """"option" of the report, "run" (option of `satpipe tag`), or "none": UTC, since neither gave one."""
    recordings: int
    duration_s: float
    """Total length of the audio that could be decoded."""
    statuses: dict[str, int]
    """Number of recordings of each status, the most common first."""
    problems: tuple[Problem, ...]
    """The first `MAX_PROBLEMS` recordings that were not tagged from start to end."""
    warnings: dict[str, int]
    """Number of recordings with a warning of each kind, the most common first."""
    warned: tuple[Warned, ...]
    """The first `MAX_PROBLEMS` recordings with a warning."""
    span: tuple[np.datetime64, np.datetime64] | None
    """Start of the first and end of the last recording whose start time is known, in local time."""
    levels: tuple[float, ...]
    """Thresholds at which chunks are counted, ascending, [L]."""
    labels: tuple[LabelTotal, ...]
    """Classes and groups that reach the lowest level: first those shown by themselves, the most common first, then the
    classes shown in a group."""
    grid: Grid
    chunks: npt.NDArray[np.int64]
    """Number of chunks in each cell, [rows, columns]."""
    shares: npt.NDArray[np.uint8]
    """Share of a cell's chunks that reach a level, as 255 times its square root, for the first labels,
    [K, L, rows, columns]."""
    details: tuple[Detail, ...]
    """Recordings that are shown one by one."""
    tagged: int
    """Number of recordings that could be shown one by one."""
    moments: tuple[Moment, ...]
    """By label; the certain ones first, then those near some level, in order of their scores."""
    notes: tuple[str, ...]
    """Limitations of the data."""
