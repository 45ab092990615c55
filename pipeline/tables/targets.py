"""Targets: the classes, groups and own classes that a command looks for.

Every command and reader chooses its targets with `choose_targets` and gets their scores from
`satpipe.pipeline.tables.chunk_scores.read_targets`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from satpipe.pipeline.storage import described, errors, locate
from satpipe.pipeline.tables.own_tables import own_table
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.groups import Group, find_group, parse
from satpipe.sat.labels import Key, choose, weak_labels

Labels = Key | Iterable[Key]
"""One class or several: a name, a mid, or `under:` and one of these for all below it, see `sat.labels.choose`."""
OwnNames = str | Iterable[str]
"""One table of own classes or several, or `TABLE/CLASS` for one class."""
Groups = str | Iterable[str]
"""One group or several: its name, or a class for its branch of the ontology, see `sat.groups.find_group`."""


@dataclass(frozen=True)
class Target:
    """A class, a group or an own class; the score of a group in a chunk is the maximum over its classes."""

    mid: str
    """AudioSet's identifier of a class; `group/NAME` for a group."""
    label: str
    """Name of the class or group."""
    columns: tuple[int, ...]
    """Positions of its classes in the model's outputs; of an own class, in its table."""
    own: str = ""
    """Name of the table of an own class; "" for a class or a group."""
    threshold: float | None = None
    """Threshold in the file of an own class; None for a class or a group."""

    @staticmethod
    def of_class(column: int) -> "Target":
        """Return the target of an output of the model."""
        label = weak_labels()[column]
        return Target(label.mid, label.name, (column,))


@cache
def all_classes() -> tuple[Target, ...]:
    """Return the targets of the model's outputs, in their order."""
    return tuple(map(Target.of_class, range(len(weak_labels()))))


def choose_targets(
    labels: Labels | None = None,
    group: Groups | None = None,
    groups: str | Path | None = None,
    own: OwnNames | None = None,
    folder: Path | None = None,
) -> tuple[Target, ...]:
    """Return the classes, groups and own classes that are asked for, each once; without any choice, all 527 classes.

    Args:
        labels: Classes.
        group: Groups, by name.
        groups: A file of groups, see `satpipe.sat.groups.parse`. Without `group`, all of its groups are chosen.
        own: Tables of own classes, each for all of its classes, or `TABLE/CLASS` for one of them.
        folder: The output folder that has them.

    Raises:
        LabelError: A class or group is unknown, the message suggests similar ones; or the file has an invalid line.
        ConfigError: The file cannot be read, or two of what is chosen have the same name.
        OutputError: The folder has no such table of own classes.
    """
    listed = {} if groups is None else read_groups(groups)
    wanted = tuple(listed) if group is None and listed else (group,) if isinstance(group, str) else tuple(group or ())
    if labels is None and not wanted and own is None:
        return all_classes()
    found = [] if labels is None else [Target.of_class(column) for column in choose(labels)]
    found += [Target(each.mid, each.name, each.columns) for each in (find_group(name, listed) for name in wanted)]
    for each in (own,) if isinstance(own, str) else tuple(own or ()):
        found += _own_targets(each, folder or locate("."))
    targets = tuple(dict.fromkeys(found))
    names: dict[str, Target] = {}
    for target in targets:
        if (other := names.setdefault(target.label, target)) != target:
            raise ConfigError(f"{other.mid} and {target.mid} are both called {target.label!r}: choose one")
    return targets


def _own_targets(name: str, folder: Path) -> list[Target]:
    """Return the classes of a table of own classes, or one of them."""
    table_name, _, label = name.partition("/")
    classes = own_table(folder, table_name).classes
    targets = [
        Target(mid, own, (place,), table_name, threshold)
        for place, (mid, own, threshold) in enumerate(
            zip(classes.mids, classes.labels, classes.thresholds, strict=True)
        )
    ]
    chosen = [each for each in targets if label in ("", each.label)]
    if not chosen:
        raise LabelError(f"{table_name} has no class {label!r}; it has {', '.join(classes.labels)}")
    return chosen


def read_groups(path: str | Path) -> dict[str, Group]:
    """Return the groups of a file, by name.

    Raises:
        ConfigError: The file cannot be read.
        LabelError: It has an invalid line, which the message names.
    """
    try:
        return parse(locate(path).read_text("utf-8-sig"), path)
    except errors(UnicodeDecodeError) as error:
        raise ConfigError(f"the file of groups {path} cannot be read: {described(error)}") from error
