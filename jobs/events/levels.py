"""The classes and groups to look for, and their thresholds."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.ground_truth import Thresholds
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.jobs.options.results import DEFAULT_THRESHOLD, EventOptions
from satpipe.pipeline.tables.targets import Target, all_classes
from satpipe.sat.errors import ConfigError

LOW_SHARE = 0.6
"""Default of the lower threshold, as a share of the upper one: 0.3 for 0.5."""


@dataclass(frozen=True, eq=False)
class Levels:
    """Classes and groups, and their thresholds, in the same order."""

    targets: tuple[Target, ...]
    """The classes, groups and own classes to look for, [T]."""
    threshold: Floats
    """Minimum for the highest score of an event, [T]."""
    low: Floats
    """Minimum for every score of an event, [T]."""
    filters: Ints
    """Length of the median filter over the scores, in chunks, [T]."""
    file: Thresholds | None
    """Where the thresholds come from; None: one for all."""


def levels(options: EventOptions, folder: Path) -> Levels:
    """Return the classes and groups to look for and their thresholds.

    Raises:
        ConfigError: A threshold is not above 0 and at most 1, a lower one is above the upper one, a length is negative,
            or nothing is left to look for.
        LabelError: A class or group is unknown.
        TruthError: The table of thresholds cannot be read, or has none for a class or group.
    """
    targets, threshold, file = _thresholds(options, folder)
    low = threshold * LOW_SHARE if options.low is None else np.full(len(targets), options.low)
    bad = threshold[~((threshold > 0) & (threshold <= 1))]
    if len(bad):
        raise ConfigError(f"--threshold must be above 0 and at most 1, not {bad[0]:g}")
    above = np.flatnonzero(low > threshold)
    if len(above):
        label, upper = targets[above[0]].label, threshold[above[0]]
        raise ConfigError(
            f"--low must not be above the threshold, which is {upper:g} for '{label}', not {options.low:g}; by default "
            f"it is {LOW_SHARE:g} of each threshold"
        )
    filters = np.ones(len(targets), np.int32) if file is None else file.filters_of(targets)
    return Levels(targets, threshold, low, filters, file)


def _thresholds(options: EventOptions, folder: Path) -> tuple[tuple[Target, ...], Floats, Thresholds | None]:
    targets = options.selection.targets(folder)
    if not targets:
        raise ConfigError("--labels, --group and --own select nothing")
    if options.threshold is None:
        known = [each.threshold for each in targets]
        return targets, np.array([DEFAULT_THRESHOLD if each is None else each for each in known]), None
    path = str(options.threshold)
    with suppress(ValueError):
        return targets, np.full(len(targets), float(path)), None
    given = ground_truth.read_thresholds(path)
    if targets == all_classes() and given.default is None:
        targets = given.targets()
        if not targets:
            raise ConfigError(f"{path} has no threshold for any of the model's classes")
    return targets, given.of(targets), given
