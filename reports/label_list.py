"""The list of `satpipe labels`: groups, and classes with their place in the ontology."""

from collections.abc import Iterable

from satpipe.sat.errors import LabelError
from satpipe.sat.groups import Group, find_group, shipped
from satpipe.sat.labels import Label, all_labels, parents, weak_labels

_NO_OUTPUT = "-"


def label_list(search: str = "") -> list[str]:
    """Return the lines of the groups and classes that match a search; without one, of all groups and the 527 classes.

    A class matches with part of its name, with its mid, or as a member of a group that matches.

    Args:
        search: Part of a name, or a mid; case does not matter.

    Raises:
        LabelError: Nothing matches; the message suggests similar names.
    """
    text = search.strip().casefold()
    groups = [group for group in shipped().values() if text in group.name.casefold()]
    members = {column for group in groups for column in group.columns} if text else set()
    known = all_labels() if text else weak_labels()
    found = [label for label in known if _matches(label, text) or label.index in members]
    if not groups and not found:
        find_group(search)
        raise LabelError(f"no class and no group has {search!r} in its name")
    lines = []
    if groups:
        lines += _aligned([("group", "classes"), *((group.name, str(len(group.columns))) for group in groups)])
    if groups and found:
        lines.append("")
    if found:
        lines += _aligned([("index", "mid", "class", "parents", "groups"), *map(_row, found)])
    if any(label.index is None for label in found):
        lines += ["", f"{_NO_OUTPUT}: the models have no output for this class"]
    return lines


def _matches(label: Label, text: str) -> bool:
    return text in label.name.casefold() or text == label.mid


def _row(label: Label) -> tuple[str, ...]:
    index = _NO_OUTPUT if label.index is None else str(label.index)
    groups = ", ".join(group.name for group in _groups_of(label))
    return index, label.mid, label.name, "; ".join(parent.name for parent in parents(label.mid)), groups


def _groups_of(label: Label) -> Iterable[Group]:
    return (group for group in shipped().values() if label.index in group.columns)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
