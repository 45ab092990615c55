"""Verification sheets: clips cut from recordings, and whether someone heard their class in them.

A sheet is a CSV file for people and spreadsheets. It begins with a byte-order mark, without which Excel does not read
it as UTF-8. Texts that a spreadsheet would run as a formula, and those that begin with an apostrophe, get an apostrophe
in front of them, which reading removes. Numbers have so many digits that no spreadsheet reads them as dates, or their
point as a separator of thousands.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satpipe.jobs.ground_truth.columns import NAMES_FIRST, read_answer, strong_columns
from satpipe.jobs.ground_truth.dialects import read_table
from satpipe.jobs.ground_truth.text_file import FORMULA, NO_VALUE, SHEET, Table, cell_at, read_number
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import TruthError

COLUMNS = (*SHEET, "stratum", "probability", "model_sha256")
_JUDGED = ("clip", "label", "mid", "score", "correct", "stratum", "probability", "model_sha256")
TOP = "top"
"""Stratum of the clips with the highest scores, whose chance of being drawn is not known."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of a recording with a label of any text."""

    recording: str
    start_s: float
    end_s: float
    label: str
    mid: str
    """ "" if it is unknown."""
    score: float | None


@dataclass(frozen=True)
class JudgedClip:
    """A row of a verification sheet."""

    clip: str
    label: str
    mid: str
    score: float | None
    correct: str
    """yes, no, unsure, or "" if nobody answered."""
    stratum: str
    probability: float | None
    """Chance of being drawn; None for `TOP`."""
    model_sha256: str


def sheet_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return a sheet with these rows, in the order of `COLUMNS`; None is an empty cell."""
    text = io.StringIO("\ufeff", newline="")
    text.seek(1)
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    lines.writerows(map(cells_of, rows))
    return text.getvalue()


def cells_of(row: Sequence[Any]) -> list[str]:
    """Return the cells of a row of a sheet."""
    return [_cell(value, 9 if name == "probability" else 4) for name, value in zip(COLUMNS, row, strict=True)]


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in FORMULA and text else text


def read_sheet(path: str | Path) -> list[JudgedClip]:
    """Read a verification sheet, as written by `satpipe clips` or saved by a spreadsheet.

    Args:
        path: Path or URL.

    Raises:
        TruthError: The file cannot be read, is not a sheet, or has invalid lines; the message lists them.
    """
    table = read_table(locate(path))
    places = {name: table.column([name.replace("_", " ")]) for name in _JUDGED}
    missing = [name for name in _JUDGED if places[name] is None]
    if missing:
        raise TruthError(
            f"{path} is not a verification sheet of `satpipe clips`: it has no column {' and no column '.join(missing)}"
        )
    rows = []
    for number, cells in table.body():
        with table.line(number):
            rows.append(_judged(table, {name: cell_at(cells, place) for name, place in places.items()}))
    table.check()
    if not rows:
        raise TruthError(f"{path} lists no clips")
    return rows


def _judged(table: Table, cells: dict[str, str]) -> JudgedClip:
    for name in ("clip", "label"):
        if not cells[name]:
            raise TruthError(f"the {name} is missing")
    table.once(cells["clip"], f"clip {cells['clip']}")
    known = {True: "yes", False: "no", None: "unsure" if cells["correct"] else ""}
    return JudgedClip(
        cells["clip"],
        cells["label"],
        cells["mid"],
        _number(cells["score"], "score", -1),  # of a search, it is a cosine
        known[read_answer(cells["correct"])],
        cells["stratum"],
        _probability(cells["probability"]),
        cells["model_sha256"],
    )


def _probability(text: str) -> float | None:
    number = _number(text, "probability", 0)
    if number == 0:
        raise TruthError("probability 0 is not possible: the clip was drawn")
    return number


def _number(text: str, what: str, low: int) -> float | None:
    """Return the number in a cell, which must be from `low` to 1; None if it is empty."""
    if text in NO_VALUE:
        return None
    number = read_number(text, what)
    if not low <= number <= 1:
        raise TruthError(f"{what} {text} is not from {low} to 1")
    return number


def read_stretches(path: str | Path) -> list[Stretch]:
    """Read labelled stretches of recordings with labels of any text: a table with the columns of `read_strong`.

    Columns `mid` and `score` are read, too.

    Raises:
        TruthError: The file cannot be read, has no column of recordings, or has invalid lines; the message lists them.
    """
    table = read_table(locate(path))
    if not table.rows:
        raise TruthError(f"{path} is empty")
    columns = strong_columns(table, NAMES_FIRST)
    if columns.clip is None:
        raise TruthError(f"{path} has no column of recordings")
    mid, score = (table.column([name]) if columns.header else None for name in ("mid", "score"))
    found = []
    for number, cells in table.body(columns.header):
        with table.line(number):
            recording, label = cell_at(cells, columns.clip), columns.label_cell(cells)
            if not recording or not label:
                raise TruthError(f"the {'label' if recording else 'recording'} is missing")
            onset_s, offset_s = columns.times(cells)
            value = _number(cell_at(cells, score), "score", -1)
            found.append(Stretch(recording, onset_s, offset_s, label, cell_at(cells, mid), value))
    table.check()
    return found
