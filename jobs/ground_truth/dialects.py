"""Label files of any dialect as tables: text, JAMS, TextGrid and Parquet.

JAMS       https://jams.readthedocs.io: annotations of a namespace of tags, segments or sound events
TextGrid   https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html: intervals and points with a text
Parquet    the columns are those of a table with a header, such as `satpipe events` writes
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.jobs.ground_truth.text_file import Table, TextFile, loaded
from satpipe.sat.errors import TruthError

SUFFIXES = (".txt", ".tsv", ".csv", ".jams", ".textgrid", ".parquet")
_HEADER = ["onset", "offset", "label"]
_NAMESPACES = ("segment_open", "scaper", "sound_event")  # and tag_...
_BACKGROUND = "background"  # Scaper's role of the recording that events were mixed into
_TOKEN = re.compile(r'"(?:[^"]|"")*"|<\w+>|(?<!\S)[-+]?\d\S*')


def read_table(path: Path) -> Table:
    """Read a label file.

    Raises:
        TruthError: The file cannot be read, or is not what its suffix says.
    """
    match path.suffix.lower():
        case ".jams":
            return _table(path, _jams(path), "JAMS", "observation")
        case ".textgrid":
            return _table(path, _textgrid(path), "TextGrid", "interval")
        case ".parquet":
            return _parquet(path)
    return TextFile(path)


def _table(path: Path, rows: Iterator[list[str]], format: str, unit: str) -> Table:
    return Table(path, enumerate([_HEADER, *rows]), format, unit)


def _jams(path: Path) -> Iterator[list[str]]:
    """Yield onset, offset and label of each observation, without backgrounds."""
    try:
        annotations = json.loads(loaded(path))["annotations"]
        known = [each for each in annotations if each["namespace"].startswith(("tag_", *_NAMESPACES))]
        for annotation in known:
            for each in annotation["data"]:
                value = each["value"]
                if isinstance(value, dict):
                    if value.get("role") == _BACKGROUND:
                        continue
                    value = value["label"]
                onset_s = float(each["time"])
                yield [repr(onset_s), repr(onset_s + float(each["duration"])), str(value)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TruthError(f"{path} is not a JAMS file: {type(error).__name__}: {error}") from error
    if annotations and not known:
        found = ", ".join(dict.fromkeys(each["namespace"] for each in annotations))
        raise TruthError(
            f"{path} has no annotation of the namespaces {', '.join(_NAMESPACES)} and tag_..., but of {found}"
        )


def _textgrid(path: Path) -> Iterator[list[str]]:
    """Yield start, end and text of each interval that has a text, and of each point.

    Only free-standing numbers, texts and flags are read, as Praat does: the long and the short format are then one.
    """
    data = loaded(path)
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        tokens = iter(_TOKEN.findall(text))

        def string() -> str:
            token = next(tokens)
            if token[0] != '"':
                raise ValueError(f"{token} where a text is expected")
            return str(token[1:-1]).replace('""', '"').strip()

        def number() -> float:
            return float(next(tokens))

        if string() != "ooTextFile" or string() != "TextGrid":
            raise ValueError("it does not begin as one")
        number(), number()  # start and end of the recording
        tiers = int(number()) if next(tokens) == "<exists>" else 0
        for _ in range(tiers):
            interval = string() == "IntervalTier"
            string(), number(), number()  # name, start and end of the tier
            for _ in range(int(number())):
                start_s = number()
                end_s = number() if interval else start_s
                label = string()
                if label:
                    yield [repr(start_s), repr(end_s), label]
    except StopIteration:
        raise TruthError(f"{path} is not a complete TextGrid") from None
    except (ValueError, OverflowError) as error:  # the latter for a number of tiers or intervals such as 1e999
        raise TruthError(f"{path} is not a TextGrid: {error}") from error


def _parquet(path: Path) -> Table:
    try:
        table = pq.read_table(pa.BufferReader(loaded(path)))
    except (pa.ArrowException, OSError) as error:  # Arrow raises OSError for damaged content
        raise TruthError(f"{path} is not a Parquet file: {error}") from error
    columns = [["" if value is None else _text(value) for value in column.to_pylist()] for column in table.columns]
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    return Table(path, enumerate([table.column_names, *rows]), "Parquet", "row")


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
