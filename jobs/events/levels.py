"""The classes to look for, and their thresholds."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.ground_truth import Thresholds
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.jobs.options.results import EventOptions
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import choose, weak_labels
from satpipe.sat.model.config import CLASSES

LOW_SHARE = 0.6
"""Default of the lower threshold, as a share of the upper one: 0.3 for 0.5."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Classes and thresholds, in the same order."""

    columns: tuple[int, ...]
    """Positions in the model's outputs, [K]."""
    threshold: Floats
    """Minimum of the highest score of an event, [K]."""
    low: Floats
    """Minimum of all its scores, [K]."""
    filters: Ints
    """Length of the median filter over the scores, in chunks, [K]."""
    model_sha256: str | None
    """Model that the thresholds were chosen for, if it is known."""


def levels(options: EventOptions) -> Levels:
    """Return the classes to look for and their thresholds.

    Raises:
        ConfigError: A threshold is not above 0 and at most 1, a lower one is above the upper one, or a length is
            negative.
        LabelError: A class is unknown.
        TruthError: The table of thresholds cannot be read, or wanted classes are missing in it.
    """
    columns, threshold, file = _thresholds(options)
    low = threshold * LOW_SHARE if options.low is None else np.full(len(columns), options.low)
    bad = threshold[~((threshold > 0) & (threshold <= 1))]
    if len(bad):
        raise ConfigError(f"--threshold must be above 0 and at most 1, not {bad[0]:g}")
    above = np.flatnonzero(low > threshold)
    if len(above):
        label, upper = weak_labels()[columns[above[0]]].name, threshold[above[0]]
        raise ConfigError(
            f"--low must not be above the threshold, which is {upper:g} for '{label}', not {options.low:g}; by default "
            f"it is {LOW_SHARE:g} of each threshold"
        )
    filters = np.ones(len(columns), np.int32)
    if file is not None:
        filters = file.filters_of([weak_labels()[column] for column in columns])
    return Levels(columns, threshold, low, filters, None if file is None else file.model_sha256)


def _thresholds(options: EventOptions) -> tuple[tuple[int, ...], Floats, Thresholds | None]:
    columns = None if options.labels is None else choose(options.labels)
    if columns == ():
        raise ConfigError("no class is chosen")
    path = str(options.threshold)
    with suppress(ValueError):
        value = float(path)
        columns = tuple(range(CLASSES)) if columns is None else columns
        return columns, np.full(len(columns), value), None
    given = ground_truth.read_thresholds(path)
    if columns is None:
        columns = given.outputs() if given.default is None else tuple(range(CLASSES))
        if not columns:
            raise ConfigError(f"{path} has no threshold for any of the model's classes")
    labels = [weak_labels()[column] for column in columns]
    return columns, given.of(labels), given
