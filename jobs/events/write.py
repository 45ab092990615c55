"""Writes events as a table, or as a file for each recording in the format of a program that displays them."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.events.formats import RAVEN_COLUMNS, RAVEN_FILE_COLUMNS, RENDERERS, Event, Found, raven_selection
from satpipe.jobs.events.sequence import Sequence
from satpipe.jobs.options.results import EventOptions
from satpipe.pipeline.storage import locate, output_file, relative_path, write_text
from satpipe.pipeline.tables.schemas import EVENTS
from satpipe.pipeline.tables.table_files import ROW_GROUP, TABLE_FORMATS, table_format, table_writer
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.printable import counted

FORMATS = (*TABLE_FORMATS, *RENDERERS)
SHOWN = 5  # classes named in the closing line
_ABOUT = b"satpipe.events"
_ONE_FILE = ".txt"  # ending of a Raven table for all recordings


@dataclass
class Written:
    """Counts of the written events."""

    place: Path
    """File or folder."""
    recordings: int
    """Number of recordings with scores."""
    notes: tuple[str, ...]
    """Restrictions on the use of the events."""
    with_events: int = 0
    """Number of recordings with events."""
    labels: Counter[str] = field(default_factory=Counter)
    """Number of events of each class."""

    def count(self, events: pa.Table) -> pa.Table:
        """Count the events of some recordings, and return them."""
        self.with_events += len(events["recording"].unique())
        self.labels.update({each["values"]: each["counts"] for each in events["label"].value_counts().to_pylist()})
        return events


def text(written: Written) -> list[str]:
    """Return the closing lines of the command."""
    count, most = written.labels.total(), written.labels.most_common(SHOWN)
    lines = [f"note: {note}" for note in written.notes]
    found = f"{counted(count, 'event')} in {written.with_events:,} of {counted(written.recordings, 'recording')}"
    lines.append(f"{found}: {written.place}")
    if most:
        rest = len(written.labels) - len(most)
        more = f", and {rest} more" if rest else ""
        lines.append(f"classes: {', '.join(f'{label} ({events:,})' for label, events in most)}{more}")
    return lines


def write(out: str | Path, options: EventOptions, to: str | Path | None = None, format: str | None = None) -> Written:
    """Find the events of a folder and write them.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        options: Definition of an event.
        to: A file for tables, else a folder, path or URL; for `raven`, a name that ends in `.txt` is one file for all
            recordings. By default `events.parquet`, `events.csv` or `events.tsv`, or a folder such as `events_raven`,
            in `out`, where no run of `tag` touches it.
        format: One of `FORMATS`; by default what the ending of `to` says, else `parquet`.

    Raises:
        OutputError: The folder cannot be read, or a file cannot be written.
        ConfigError: A threshold, length or format is not valid, or the ending of `to` is of no table or another one.
        LabelError: A class is unknown.
        TruthError: The table of thresholds cannot be read, or classes are missing in it.
    """
    kind = _kind(to, format)
    finder = Finder(out, options)
    name = f"events.{kind}" if kind in TABLE_FORMATS else f"events_{kind}"
    place = finder.tables.folder / name if to is None else locate(to)
    written = Written(place, int((finder.tables.chunks[finder.recordings] > 0).sum()), finder.notes)
    found = map(written.count, finder.events())
    if kind in TABLE_FORMATS:
        _write_table(found, place, kind, finder.about())
    elif kind == "raven" and place.suffix.lower() == _ONE_FILE:
        _write_raven(found, place, finder, finder.about())
    else:
        _write_files(found, place, kind, finder, finder.about())
    return written


def _kind(to: str | Path | None, format: str | None) -> str:
    """Return the format to write, one of `FORMATS`. Raises the ConfigErrors of `write` about it."""
    if format is not None and format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, not '{format}'")
    if format in RENDERERS:
        if to is not None and locate(to).suffix.lower()[1:] in TABLE_FORMATS:
            raise ConfigError(
                f"{to} is a name for a table, but --format {format} writes a file for each recording: name a folder"
            )
        return format
    if to is None:
        return format or TABLE_FORMATS[0]
    others = f"; for files of other programs, add --format {', '.join(RENDERERS)}"
    kind = table_format(to, "" if format else others)
    if format not in (None, kind):
        raise ConfigError(f"{to} is not a name for --format {format}: leave out --format, or end the name in .{format}")
    return kind


def _write_table(found: Iterable[pa.Table], place: Path, kind: str, about: dict[str, Any]) -> None:
    with table_writer(place, kind, EVENTS, {_ABOUT: json.dumps(about).encode()}) as add:
        rows = [EVENTS.empty_table()]
        for table in found:
            rows.append(table)
            if sum(map(len, rows)) >= ROW_GROUP:
                add(pa.concat_tables(rows).unify_dictionaries())
                rows = []
        if rows:
            add(pa.concat_tables(rows).unify_dictionaries())


def _write_files(found: Iterable[pa.Table], folder: Path, kind: str, finder: Finder, about: dict[str, Any]) -> None:
    """Write a file for each recording with chunks, also for one without events."""
    render, suffix = RENDERERS[kind]
    for each in _by_recording(found, finder, about):
        write_text(folder / relative_path(each.recording, suffix), render(each))


def _write_raven(found: Iterable[pa.Table], place: Path, finder: Finder, about: dict[str, Any]) -> None:
    """Write one selection table for the files of all recordings."""
    sequence = Sequence(finder.tables, finder.recordings)
    with output_file(place) as path, path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join((*RAVEN_COLUMNS, *RAVEN_FILE_COLUMNS)) + "\n")
        numbers = count(1)
        for each in _by_recording(found, finder, about):
            for event in each.events:
                where = sequence.find(each.recording, event.start_s)
                file.write(raven_selection(each, next(numbers), event, where) + "\n")


def _by_recording(found: Iterable[pa.Table], finder: Finder, about: dict[str, Any]) -> Iterator[Found]:
    """Yield the events of each recording with chunks: first the recordings with events, then those without."""
    tables = finder.tables
    tagged = {tables.recordings[row]: row for row in finder.recordings if tables.chunks[row]}

    def of(recording: str, events: list[Event]) -> Found:
        row = tagged.pop(recording)
        rate_hz = tables.table["rate_hz"][row].as_py() or SAMPLE_RATE_HZ
        time = None if np.isnat(tables.time[row]) else f"{tables.time[row]}Z"
        return Found(recording, float(tables.duration_s[row]), rate_hz, time, about, events)

    for table in found:
        columns = [table[name].to_pylist() for name in Event._fields]
        names = table["recording"].to_pylist()
        for recording, rows in groupby(zip(names, *columns, strict=True), key=itemgetter(0)):
            yield of(recording, [Event(*values) for _, *values in rows])
    for recording in list(tagged):
        yield of(recording, [])
