"""Thresholds of classes: a JSON file, or a table.

The file has the keys `default` (of classes that it does not name), `thresholds` (by mid), `groups` (by name: `classes`,
their mids, and the `threshold` of their maximum), `median_filter` (by mid or group: an odd number of chunks),
`model_sha256` and `source` (where the thresholds come from). All but one of the first three may be left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs.ground_truth.columns import LABEL
from satpipe.jobs.ground_truth.text_file import NO_VALUE, TextFile, cell_at, count_and_names, loaded, read_number
from satpipe.jobs.ground_truth.vocabulary import Vocabulary
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import LabelError, TruthError
from satpipe.sat.labels import Label, find


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Thresholds of classes, and of groups of classes."""

    path: str
    values: dict[str, float]
    """By mid or group."""
    default: float | None = None
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Mids of the classes of each group."""
    filters: dict[str, int] = field(default_factory=dict)
    """Length of the median filter over scores, in chunks, by mid or group."""
    model_sha256: str | None = None
    source: dict[str, Any] = field(default_factory=dict)

    def get(self, mid: str) -> float | None:
        """Return the threshold of a class or group, else the lowest of the groups that it is in, else the default.

        A group is detected where one of its classes reaches the threshold.
        """
        groups = [self.values[name] for name, mids in self.members.items() if mid in mids]
        return self.values.get(mid, min(groups, default=self.default))

    def of(self, labels: Sequence[Label]) -> Floats:
        """Return the threshold of each class [K].

        Raises:
            TruthError: A class has none.
        """
        found = [self.get(label.mid) for label in labels]
        missing = [label.name for label, value in zip(labels, found, strict=True) if value is None]
        if missing:
            raise TruthError(f"{self.path} has no threshold for {count_and_names(missing, 'class', 'classes')}")
        return np.array(found, np.float64)

    def filters_of(self, labels: Sequence[Label]) -> Ints:
        """Return the length of the median filter of each class [K], in chunks.

        A class without a filter of its own has the longest of the groups that it is in.
        """

        def length(mid: str) -> int:
            groups = [self.filters.get(name, 1) for name, mids in self.members.items() if mid in mids]
            return self.filters.get(mid, max(groups, default=1))

        return np.array([length(label.mid) for label in labels], np.int32)

    def outputs(self) -> tuple[int, ...]:
        """Return the model's outputs that have a threshold of their own or by a group."""
        mids = {*self.values, *(mid for mids in self.members.values() for mid in mids)} - self.members.keys()
        known = [find(mid).index for mid in mids]
        return tuple(sorted(index for index in known if index is not None))


def read_thresholds(path: str | Path) -> Thresholds:
    """Read the thresholds of classes: a JSON file, or a table with the columns mid or label, and threshold.

    Args:
        path: Path or URL.

    Raises:
        TruthError: The file cannot be read, or is invalid.
        LabelError: It has labels that satpipe does not know.
    """
    place = locate(path)
    return _from_json(place) if loaded(place).lstrip()[:1] == b"{" else Thresholds(str(path), _from_table(place))


def _from_json(path: Path) -> Thresholds:
    try:
        content = json.loads(loaded(path))
        groups = {name: (tuple(each["classes"]), each["threshold"]) for name, each in content.get("groups", {}).items()}
        values = {str(mid): value for mid, value in content.get("thresholds", {}).items()}
        filters = {str(name): each for name, each in content.get("median_filter", {}).items()}
        default, sha256 = content.get("default"), content.get("model_sha256")
        source = content.get("source", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TruthError(f"{path} is not a file of thresholds: {type(error).__name__}: {error}") from error
    values |= {name: value for name, (_, value) in groups.items()}
    if not values and default is None:
        raise TruthError(f"{path} has no thresholds: expected the keys default, thresholds or groups")
    for name, value in [*values.items(), *([("default", default)] if default is not None else [])]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise TruthError(f"{path}: the threshold of {name} must be from 0 to 1, not {value!r}")
    for name, value in filters.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % 2 == 0:
            raise TruthError(f"{path}: the median filter of {name} must be an odd number of chunks, not {value!r}")
    for mid in {*values, *filters, *(mid for mids, _ in groups.values() for mid in mids)} - groups.keys():
        try:
            find(mid)
        except LabelError as error:
            raise LabelError(f"{path}: {error}") from error
    return Thresholds(
        str(path), values, default, {name: mids for name, (mids, _) in groups.items()}, filters, sha256, source
    )


def _from_table(path: Path) -> dict[str, float]:
    file = TextFile(path)
    column, threshold = file.column(LABEL), file.column(["threshold"])
    if column is None or threshold is None:
        raise TruthError(f"{file.path} must have a header with the columns mid or label, and threshold")
    vocabulary = Vocabulary()
    thresholds: dict[str, float] = {}
    for number, cells in file.body():
        if cell_at(cells, threshold) in NO_VALUE:
            continue  # as `evaluate` writes a class without a threshold
        with file.line(number):
            label = vocabulary.one(cell_at(cells, column))
            value = read_number(cell_at(cells, threshold), "threshold")
            if not 0 <= value <= 1:
                raise TruthError(f"threshold {value:g} is not from 0 to 1")
            file.once(label, repr(label.name))
            thresholds[label.mid] = value
    file.check()
    return thresholds
