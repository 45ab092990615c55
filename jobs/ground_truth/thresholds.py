"""Thresholds of classes: a JSON file, or a table.

The file has the keys `default` (of classes that it does not name), `thresholds` (by mid or name; `group/NAME` for a
group of `satpipe labels`, `own/NAME` for an own class), `groups` (by name: `classes`, their mids, and the `threshold`
of their maximum), `median_filter` (by mid, name or group: an odd number of chunks), `model_sha256` and `source` (where
the thresholds come from). All but one of the first three may be left out.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs.ground_truth.columns import LABEL
from satpipe.jobs.ground_truth.text_file import NO_VALUE, TextFile, cell_at, count_and_names, loaded, read_number
from satpipe.jobs.ground_truth.vocabulary import Vocabulary
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.targets import Target
from satpipe.sat.errors import LabelError, TruthError
from satpipe.sat.groups import PREFIX, find_group
from satpipe.sat.labels import find
from satpipe.sat.own_classes import PREFIX as OWN


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

    def of(self, targets: Sequence[Target]) -> Floats:
        """Return the threshold of each class or group [T].

        Raises:
            TruthError: One has none, or a group of the file has other classes than the one asked for.
        """
        for target in targets:
            self._check_classes(target)
        found = [self.get(target.mid) for target in targets]
        missing = [target.label for target, value in zip(targets, found, strict=True) if value is None]
        if missing:
            raise TruthError(f"{self.path} has no threshold for {count_and_names(missing, 'class', 'classes')}")
        return np.array(found, np.float64)

    def filters_of(self, targets: Sequence[Target]) -> Ints:
        """Return the length of the median filter of each class or group [T], in chunks.

        A class without a filter of its own has the longest of the groups that it is in.
        """

        def length(mid: str) -> int:
            groups = [self.filters.get(name, 1) for name, mids in self.members.items() if mid in mids]
            return self.filters.get(mid, max(groups, default=1))

        return np.array([length(target.mid) for target in targets], np.int32)

    def targets(self) -> tuple[Target, ...]:
        """Return the targets that the file has thresholds for: classes in the model's order, then groups.

        Raises:
            LabelError: A group is listed without its classes, and none that comes with satpipe has this name.
        """
        groups = [mid for mid in self.values if mid in self.members or mid.startswith(PREFIX)]
        columns = [find(mid).index for mid in self.values if mid not in groups and not mid.startswith(OWN)]
        found = [Target.of_class(column) for column in sorted(each for each in columns if each is not None)]
        for mid in groups:
            name = mid.removeprefix(PREFIX)
            outputs = self._outputs(mid) if mid in self.members else find_group(name).columns
            if outputs:
                found.append(Target(mid, name, outputs))
        return tuple(found)

    def notes(self, model_sha256: str, targets: Iterable[Target]) -> Iterator[str]:
        """Yield notes for readers of results with these thresholds.

        Args:
            model_sha256: The model whose scores were used.
            targets: Classes and groups whose thresholds were used.
        """
        if self.model_sha256 not in (None, model_sha256):
            yield f"the thresholds of {self.path} were chosen for another model"
        used = {target.mid for target in targets}
        unused = [mid for mid in self.values if mid.startswith(OWN) and mid not in used]
        if unused:
            names = count_and_names(unused, "own class", "own classes")
            yield f"not used, without --own: the thresholds in {self.path} of {names}"

    def _outputs(self, group: str) -> tuple[int, ...]:
        found = [find(mid).index for mid in self.members[group]]
        return tuple(dict.fromkeys(column for column in found if column is not None))

    def _check_classes(self, target: Target) -> None:
        if target.mid in self.members and set(self._outputs(target.mid)) != set(target.columns):
            raise TruthError(f"{self.path} has its threshold of {target.label!r} for a group of other classes")


def read_thresholds(path: str | Path) -> Thresholds:
    """Read the thresholds of classes: a JSON file, or a table with the columns mid or label, and threshold.

    Args:
        path: Path or URL.

    Raises:
        TruthError: The file cannot be read, or is invalid.
        LabelError: It has labels that satpipe does not know.
    """
    place = locate(path)
    content = loaded(place).removeprefix(BOM_UTF8)
    is_json = content.lstrip()[:1] == b"{"
    return _from_json(place, content) if is_json else Thresholds(str(path), _from_table(place))


def _from_json(path: Path, text: bytes) -> Thresholds:
    try:
        content = json.loads(text)
        groups = {
            _group_key(name): (each["classes"], each["threshold"]) for name, each in content.get("groups", {}).items()
        }
        given, given_filters = content.get("thresholds", {}).items(), content.get("median_filter", {}).items()
        default, sha256 = content.get("default"), content.get("model_sha256")
        source = content.get("source", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TruthError(f"{path} is not a file of thresholds: {type(error).__name__}: {error}") from error
    for name, (mids, _) in groups.items():
        if not isinstance(mids, list) or not all(isinstance(mid, str) for mid in mids):
            raise TruthError(f"{path}: the classes of {name} must be a list of mids, not {json.dumps(mids)}")
    try:
        values = {name if name in groups else _mid(name): value for name, value in given}
        filters = {_group_key(name) if _group_key(name) in groups else _mid(name): n for name, n in given_filters}
        members = {name: tuple(find(mid).mid for mid in mids) for name, (mids, _) in groups.items()}
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    if len(values) < len(given):
        raise TruthError(f"{path} has two thresholds for a class: one by name, and one by mid")
    values |= {name: value for name, (_, value) in groups.items()}
    if not values and default is None:
        raise TruthError(f"{path} has no thresholds: expected the keys default, thresholds or groups")
    for name, value in [*values.items(), *([("default", default)] if default is not None else [])]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise TruthError(f"{path}: the threshold of {name} must be from 0 to 1, not {value!r}")
    for name, value in filters.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % 2 == 0:
            raise TruthError(f"{path}: the median filter of {name} must be an odd number of chunks, not {value!r}")
    return Thresholds(str(path), values, default, members, filters, sha256, source)


def _mid(name: str) -> str:
    """Return the `mid` of a class by name or mid; that of a group or an own class is already one."""
    if name.startswith(PREFIX):
        find_group(name.removeprefix(PREFIX))  # raises an error if there is none
    return name if name.startswith((PREFIX, OWN)) else find(name).mid


def _group_key(name: str) -> str:
    """Return the `mid` of a group by name. What has a slash is one already: of a target of aliases."""
    return name if "/" in name else PREFIX + name


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
