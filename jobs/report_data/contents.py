"""What there is to choose, and what comes out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.report_data.excerpts import Excerpt
from satpipe.jobs.report_data.grid import Grid
from satpipe.sat.labels import Label

SCORE_STEPS = 200  # of a quantised score: thresholds in steps of 0.005 are reached by the same chunks as before


@dataclass(frozen=True)
class LabelTotal:
    """How much there is of a label."""

    label: Label
    duration_s: tuple[float, ...]
    """Length together of the chunks that reach each level, [L]."""
    peak: float
    """Highest score."""


@dataclass(frozen=True, eq=False)
class Detail:
    """One recording over time."""

    recording: str
    status: str
    duration_s: float
    time: np.datetime64
    """When it started, local time; NaT where that is not known."""
    labels: tuple[int, ...]
    """Those with the highest scores in it, positions in `ReportData.labels`, [k]."""
    scores: npt.NDArray[np.uint8]
    """Highest score of each label and part of the recording, all parts of one length, in `SCORE_STEPS`, [k, parts]."""


@dataclass(frozen=True, eq=False)
class Moment:
    """One chunk worth listening to."""

    kind: str
    """`CERTAIN` or `DOUBTFUL`."""
    label: int
    """Position in `ReportData.labels`."""
    rank: int
    """Among the label's moments of that kind."""
    recording: str
    start_s: float
    end_s: float
    score: float
    time: np.datetime64
    """When it started, local time; NaT where that is not known."""
    excerpt: Excerpt
    """How it sounds."""


@dataclass(frozen=True)
class Problem:
    """A recording that was not tagged from start to end."""

    recording: str
    status: str
    reason: str


@dataclass(frozen=True, eq=False)
class ReportData:
    """An output folder at a glance."""

    out: str
    run: dict[str, Any]
    """What `run.json` says."""
    model: dict[str, Any]
    """What made the scores, see `Tables.model`."""
    threshold: float
    time_zone: str
    recordings: int
    """How many were looked at."""
    duration_s: float
    """Their length together, of what could be decoded."""
    statuses: dict[str, int]
    """How many of them have each status, the commonest first."""
    problems: tuple[Problem, ...]
    """The first `MOST_PROBLEMS` of those that were not tagged from start to end."""
    span: tuple[np.datetime64, np.datetime64] | None
    """Start of the first and end of the last recording whose time is known, local time."""
    levels: tuple[float, ...]
    """Thresholds that counts are made at, rising, [L]."""
    labels: tuple[LabelTotal, ...]
    """All that reach the lowest level anywhere, those found most first."""
    grid: Grid
    """Cells of time."""
    chunks: npt.NDArray[np.int64]
    """In each cell, [rows, columns]."""
    shares: npt.NDArray[np.uint8]
    """Of the chunks of a cell, the share that reaches a level: 255 times its root, of the first labels,
    [K, L, rows, columns]."""
    details: tuple[Detail, ...]
    """Of recordings that are shown one by one."""
    tagged: int
    """Recordings there could be details of."""
    moments: tuple[Moment, ...]
    """By label, the certain ones first, the most certain or doubtful first."""
    notes: tuple[str, ...]
    """What a person should know before relying on it."""
