"""What there is to choose."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.metrics.sound_events import Floats
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import Key, choose, weak_labels
from satpipe.sat.model.config import CLASSES

LOW_SHARE = 0.6
"""The lower threshold is this part of the upper one, unless it is given: 0.3 below 0.5."""


@dataclass(frozen=True)
class EventOptions:
    """Options of `satpipe events`, as on its command line."""

    labels: Key | Iterable[Key] | None = None
    """Classes to look for; None: those of the thresholds, or all."""
    threshold: float | str | Path = 0.5
    """What the highest score of an event reaches: a number, or a table with one for each class."""
    low: float | None = None
    """What all its scores reach; None: `LOW_SHARE` of the threshold."""
    min_s: float = 0.0
    """Least length; shorter events are left out."""
    merge_gap_s: float = 0.0
    """Events of a class become one if no more than this lies between them."""
    recordings: str | Iterable[str] | None = None
    """Names or patterns, see `Tables.choose`; None: all."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The classes to look for, and their thresholds."""

    columns: tuple[int, ...]
    """Positions in the model's outputs, [K]."""
    threshold: Floats
    """What the highest score of an event reaches, [K]."""
    low: Floats
    """What all its scores reach, [K]."""


def levels(options: EventOptions) -> Levels:
    """Return which classes are looked for, and with which thresholds.

    Raises:
        ConfigError: A threshold that is not above 0 and up to 1, a lower one above the upper one, or a negative length.
        LabelError: There is no such class.
        TruthError: The table of thresholds cannot be read, or lacks classes that are asked for.
    """
    for name, value in (("--min-s", options.min_s), ("--merge-gap-s", options.merge_gap_s)):
        if not value >= 0:
            raise ConfigError(f"{name} is {value:g}: it takes a number from 0")
    columns, threshold = _thresholds(options)
    low = threshold * LOW_SHARE if options.low is None else np.full(len(columns), options.low)
    for name, values in (("--threshold", threshold), ("--low", low)):
        bad = values[~((values > 0) & (values <= 1))]
        if len(bad):
            raise ConfigError(f"{name} is {bad[0]:g}: it takes numbers above 0, up to 1")
    above = np.flatnonzero(low > threshold)
    if len(above):
        label, least = weak_labels()[columns[above[0]]].name, threshold[above[0]]
        raise ConfigError(
            f"--low is {options.low:g}, above the threshold {least:g} of '{label}'; without --low it is "
            f"{LOW_SHARE:g} of each threshold"
        )
    return Levels(columns, threshold, low)


def _thresholds(options: EventOptions) -> tuple[tuple[int, ...], Floats]:
    columns = None if options.labels is None else choose(options.labels)
    if columns == ():
        raise ConfigError("there is no class to look for")
    path = str(options.threshold)
    try:
        value = float(path)
    except ValueError:
        pass
    else:
        columns = tuple(range(CLASSES)) if columns is None else columns
        return columns, np.full(len(columns), value)
    if columns is None:
        table = ground_truth.threshold_table(path)
        columns = tuple(sorted(label.index for label in table if label.index is not None))
        if not columns:
            raise ConfigError(f"{path} has a threshold for none of the model's classes")
    return columns, ground_truth.read_thresholds(path, [weak_labels()[column] for column in columns])
