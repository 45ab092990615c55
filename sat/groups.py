"""Groups of classes, whose score in a chunk is the maximum over their classes.

Named groups come from `sat/data/groups.csv`, which states the reasons for its choice of classes, or from a user's file.
In addition, every class is a group: itself and all classes below it in the ontology.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from satpipe.sat.errors import LabelError
from satpipe.sat.labels import UNDER, choose, find, is_known, names
from satpipe.sat.printable import counted

PREFIX = "group/"
"""Beginning of the `mid` of a group."""
_COLUMNS = ("group", "label")


@dataclass(frozen=True)
class Group:
    """A name for several classes."""

    name: str
    columns: tuple[int, ...]
    """Positions of its classes in the model's outputs, each once."""

    @property
    def mid(self) -> str:
        """Its identifier in tables."""
        return PREFIX + self.name


class Row(NamedTuple):
    """A row of a file of groups."""

    group: str
    label: str
    """A class, or `under:` and a class for its branch of the ontology, as for `sat.labels.choose`."""
    why: str


def shipped_rows() -> list[Row]:
    """Return the rows of the groups that come with satpipe."""
    return [row for _, row in _rows(_shipped_text(), "groups.csv")]


@cache
def shipped() -> dict[str, Group]:
    """Return the groups that come with satpipe, by name."""
    return parse(_shipped_text(), "groups.csv")


def parse(text: str, path: object) -> dict[str, Group]:
    """Return the groups of a file, by name, in the order of the file.

    Args:
        text: Its content: a header with the columns group and label, and a row for each class of a group. Cells are
            separated by commas, semicolons or tabs. Other columns are ignored.
        path: Its name, for messages.

    Raises:
        LabelError: A class is unknown or has no output, a cell is empty, or the file has no such columns or rows; the
            message names the line.
    """
    columns: dict[str, dict[int, None]] = {}
    for line, row in _rows(text, path):
        try:
            found = choose(row.label)
        except LabelError as error:
            raise LabelError(f"{path}, line {line}: {error}") from error
        columns.setdefault(row.group, {}).update(dict.fromkeys(found))
    if not columns:
        raise LabelError(f"{path} has no groups")
    return {name: Group(name, tuple(found)) for name, found in columns.items()}


def _rows(text: str, path: object) -> Iterable[tuple[int, Row]]:
    lines = text.lstrip("\ufeff").splitlines()
    head = lines[0] if lines else ""
    delimiter = next((mark for mark in "\t;" if mark in head), ",")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    header = [cell.strip().casefold() for cell in next(reader, [])]
    if not set(_COLUMNS) <= set(header):
        raise LabelError(f"{path} must have a header with the columns group and label")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise LabelError(
                f"{path}, line {reader.line_num}: {counted(len(cells), 'cell')} but {len(header)} in the header: cells "
                "with commas must be quoted"
            )
        row = dict(zip(header, map(str.strip, cells), strict=False))
        empty = next((name for name in _COLUMNS if not row.get(name)), None)
        if empty:
            raise LabelError(f"{path}, line {reader.line_num}: the {empty} is missing")
        yield reader.line_num, Row(row["group"], row["label"], row.get("why", ""))


@cache
def _shipped_text() -> str:
    return (files("satpipe.sat") / "data" / "groups.csv").read_text(encoding="utf-8")


def find_group(name: str, own: Mapping[str, Group] | None = None) -> Group:
    """Return a group by name: one of `own`, else one that comes with satpipe, else the branch of a class.

    Case does not matter. The prefix `under:` always means the branch of a class.

    Raises:
        LabelError: Neither a group nor a class has this name, the message suggests similar ones; or the model has no
            output for any class of the branch.
    """
    text = name.strip().casefold()
    named = {each.casefold(): group for groups in (shipped(), own or {}) for each, group in groups.items()}
    if text in named:
        return named[text]
    of_class = text.removeprefix(UNDER).strip()
    if is_known(of_class):
        return Group(find(of_class).name, choose(UNDER + of_class))
    known = {**names(), **{each: group.name for each, group in named.items()}}
    near = dict.fromkeys(repr(known[each]) for each in get_close_matches(of_class, known, n=3, cutoff=0.5))
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise LabelError(f"no group and no class is called {name!r}{hint}")


def is_group(name: str, own: Mapping[str, Group] | None = None) -> bool:
    """Return True if a named group or a class has this name."""
    text = name.strip().casefold()
    return text in {each.casefold() for groups in (shipped(), own or {}) for each in groups} or is_known(text)
