"""Tables of labels: rows of cells, the text files they come from, and their invalid lines."""

import csv
import gzip
import re
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path

import numpy as np
from satpipe.sat.errors import LabelError, TruthError
from satpipe.sat.printable import counted

SHOWN = 5  # invalid lines, or names, in one message
NO_VALUE = ("", "nan", "NaN")  # pandas writes the latter two for an empty cell
_DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+\Z")
SHEET = ("clip", "recording", "start_s", "end_s", "time_local", "label", "mid", "score", "correct")
"""The first columns of a verification sheet."""
FORMULA = "=+-@\t\r'"
"""First characters of a text that get an apostrophe in front of them in a sheet."""
_UNIT = re.compile(r" *(\( *s(ec(onds)?)? *\)| s| sec| seconds)$")


class Table:
    """Rows of cells of a file, and its invalid rows.

    Attributes:
        path: Path of the file.
        format: What the file is, if its content states it; else "".
        rows: Numbers and cells of the rows.
        header: The cells of the first row as names of columns: without case, underscores and unit of seconds.
    """

    def __init__(self, path: Path, rows: Iterable[tuple[int, list[str]]] = (), format: str = "", unit: str = "line"):
        self.path, self.format = path, format
        self._unit = unit
        self._number = 0  # of the current row
        self._first: dict[Hashable, int] = {}  # row of each key
        self._wrong: list[tuple[int, TruthError | LabelError]] = []
        self.rows = list(rows)
        self.header = [_plain(cell) for cell in self.rows[0][1]] if self.rows else []

    def column(self, names: Sequence[str]) -> int | None:
        """Return the position of the column with the first of these names that occurs; None if none does."""
        return next((self.header.index(name) for name in names if name in self.header), None)

    def body(self, header: bool = True) -> Iterator[tuple[int, list[str]]]:
        """Yield numbers and cells of rows; rows with more cells than the header are invalid."""
        width = len(self.header)
        for number, cells in self.rows[header:]:
            wrong = self._misfit(cells, width) if header else ""
            if wrong:
                self._wrong.append((number, TruthError(wrong)))
            else:
                yield number, cells

    @contextmanager
    def line(self, number: int) -> Iterator[None]:
        """Collect an error raised in the `with` block as one of this row."""
        self._number = number
        try:
            yield
        except (TruthError, LabelError) as error:
            self._wrong.append((number, error))

    def once(self, key: Hashable, name: str) -> None:
        """Make sure, within `line`, that a key is new.

        Raises:
            TruthError: An earlier line has it; the message calls it `name`.
        """
        first = self._first.setdefault(key, self._number)
        if first != self._number:
            raise TruthError(f"{name} is already in {self._unit} {first}")

    def check(self) -> None:
        """Raise an error if lines were invalid.

        Raises:
            LabelError: All of them have a label that satpipe does not know.
            TruthError: Some are invalid for another reason.
        """
        if not self._wrong:
            return
        self._wrong.sort(key=lambda wrong: wrong[0])
        count = len(self._wrong)
        kind = LabelError if all(isinstance(error, LabelError) for _, error in self._wrong) else TruthError
        numbers: dict[str, list[int]] = {}
        for number, error in self._wrong:
            numbers.setdefault(str(error), []).append(number)
        lines = [
            f"{self._unit} {found[0]}{f' and {len(found) - 1:,} more' if len(found) > 1 else ''}: {message}"
            for message, found in numbers.items()
        ]
        raise kind(f"{self.path} has {count:,} invalid {self._unit}{'s' if count > 1 else ''}:", *indented(lines))

    def _misfit(self, cells: list[str], width: int) -> str:
        """Return why a row does not fit a header of `width` cells; "" if it does."""
        return f"{counted(len(cells), 'cell')} but {width} in the header" if any(cells[width:]) else ""


class TextFile(Table):
    """A text file, read completely.

    Attributes:
        lines: Numbers and text of all lines that are neither empty nor comments.
        delimiter: Between the cells of a line.
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            TruthError: The file cannot be read.
        """
        super().__init__(path)
        data = loaded(path)
        try:
            text = data.decode("utf-16" if data[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise TruthError(f"{path} is not UTF-8 text, in Excel `CSV UTF-8`: {error}") from error
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.lines = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
        first = self.lines[0][1] if self.lines else ""
        self.delimiter = "\t" if "\t" in first else ";" if ";" in first.partition(",")[0] else ","
        for number, line in self.lines:
            with self.line(number):
                cells = self._cells(line)
                if any(cells):  # a spreadsheet may end with rows of empty cells
                    self.rows.append((number, cells))
        self.header = [_plain(cell) for cell in self.rows[0][1]] if self.rows else []
        if {_plain(name) for name in SHEET} <= set(self.header):
            self.rows = [(number, list(map(_without_apostrophe, cells))) for number, cells in self.rows]

    def delimiter_hint(self) -> str:
        """Return the end of a message if cells do not seem to be separated by a delimiter that is read; else ""."""
        if not self.lines or len(self.rows[0][1]) > 1:
            return ""
        first = self.lines[0][1].strip()
        other = next((name for mark, name in (("|", "'|'"), (":", "colons"), (" ", "spaces")) if mark in first), None)
        return f". Its cells seem to be separated by {other}: tabs, commas or semicolons are read" if other else ""

    def _misfit(self, cells: list[str], width: int) -> str:
        others = [name for mark, name in _DELIMITERS.items() if mark != self.delimiter and mark in cells[0]]
        if len(cells) == 1 < width and others:
            return f"cells are separated by {others[0]}, but those of the first line by {_DELIMITERS[self.delimiter]}"
        wrong = super()._misfit(cells, width)
        return f"{wrong}: cells with commas must be quoted" if wrong and self.delimiter == "," else wrong

    def _cells(self, line: str) -> list[str]:
        if self.delimiter == "\t":  # programs that write tabs rarely quote, and names may hold a quote
            cells = [cell.strip() for cell in line.split("\t")]
            return [unquoted(cell) for cell in cells] if '"' in line else cells
        try:
            cells = next(csv.reader([line], delimiter=self.delimiter, skipinitialspace=True, strict=True))
        except csv.Error:
            raise TruthError("a quote is not closed, or closed within a cell") from None
        return [cell.strip() for cell in cells]


def content(path: Path) -> bytes:
    """Return the content of a file, decompressed if its name ends in .gz.

    Raises:
        OSError: The file cannot be read, or is not compressed.
    """
    packed = path.read_bytes()
    try:
        return gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (EOFError, zlib.error) as error:
        raise gzip.BadGzipFile(str(error)) from error


def loaded(path: Path) -> bytes:
    """Return the content of a file, as `content`.

    Raises:
        TruthError: The file cannot be read.
    """
    try:
        return content(path)
    except OSError as error:
        raise TruthError(f"{path} cannot be read: {error.strerror or error}") from error


def cell_at(cells: list[str], place: int | None) -> str:
    """Return a cell; "" if the row is too short or the column does not exist."""
    return cells[place] if place is not None and place < len(cells) else ""


def unquoted(cell: str) -> str:
    """Return a cell without surrounding quotes."""
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _without_apostrophe(cell: str) -> str:
    """Return a cell of a sheet without the apostrophe that kept it from being a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] and cell[1] in FORMULA else cell


def is_number(text: str) -> bool:
    """Return True if a cell contains a number."""
    try:
        float(_with_point(text))
    except ValueError:
        return False
    return text not in NO_VALUE


def read_number(text: str, what: str) -> float:
    """Return the finite number in a cell; its decimal separator is a point or a comma.

    Raises:
        TruthError: The cell has none; the message calls it `what`.
    """
    try:
        number = float(_with_point(text))
    except ValueError:
        number = np.nan
    if not isfinite(number) or "_" in text:
        raise TruthError(f"{what} {text!r} is not a number" if text else f"the {what} is missing")
    return number


def _with_point(text: str) -> str:
    return text.replace(",", ".") if _DECIMAL_COMMA.match(text) else text


def count_and_names(names: Sequence[str], one: str, many: str) -> str:
    """Return the number of names, with a noun for one or many, and the first of them."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {one if len(names) == 1 else many}: {', '.join(names[:SHOWN])}{more}"


def indented(lines: Sequence[str]) -> list[str]:
    """Return the first of these lines, indented, for the end of a message."""
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in [*lines[:SHOWN], *more]]


def plain(text: str) -> str:
    """Return a name without case, with one space for underscores and spaces."""
    return re.sub(r"[\s_]+", " ", text.strip().casefold())


def _plain(name: str) -> str:
    return _UNIT.sub("", plain(name))
