"""Writes events as a table, or as a file for each recording in the format of a program that displays them."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.events.formats import RENDERERS, Event, Found
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.options.results import EventOptions
from satpipe.pipeline.storage import locate, output_file, relative_path, write_text
from satpipe.pipeline.tables.files import COMPRESSION
from satpipe.pipeline.tables.schemas import EVENTS
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

TABLES = ("parquet", "csv")
FORMATS = (*TABLES, *RENDERERS)
ROW_GROUP = 100_000
SHOWN = 5  # classes named in the closing line
_ABOUT = b"satpipe.events"


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
    lines.append(f"{count:,} events in {written.with_events:,} of {written.recordings:,} recordings: {written.place}")
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
        to: A file for `parquet` and `csv`, else a folder, path or URL; by default `events.parquet` or `events.csv`, or
            a folder such as `events_raven`, in `out`, where no run of `tag` touches it.
        format: One of `FORMATS`; by default `csv` if `to` ends in `.csv`, else `parquet`.

    Raises:
        OutputError: The folder cannot be read, or a file cannot be written.
        ConfigError: A threshold, length or format is not valid.
        LabelError: A class is unknown.
        TruthError: The table of thresholds cannot be read, or classes are missing in it.
    """
    kind = format or ("csv" if str(to).lower().endswith(".csv") else "parquet")
    if kind not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, not '{kind}'")
    finder = Finder(out, options)
    name = f"events.{kind}" if kind in TABLES else f"events_{kind}"
    place = finder.tables.folder / name if to is None else locate(to)
    written = Written(place, int((finder.tables.chunks[finder.recordings] > 0).sum()), finder.notes)
    found = map(written.count, finder.events())
    if kind in TABLES:
        _write_table(found, place, kind, _about(finder, options))
    else:
        _write_files(found, place, kind, finder, _about(finder, options))
    return written


def _about(finder: Finder, options: EventOptions) -> dict[str, Any]:
    """Return the model and options that the events depend on."""
    tables, levels = finder.tables, finder.levels
    mids = [target.mid for target in levels.targets]
    return {
        "satpipe": version("satpipe"),
        "run": tables.run.get("id"),
        "model": {key: tables.model[key] for key in ("arch", "sha256", "cut", "memory", "delay_s", "grids", "combine")},
        "threshold": _one_or_each(mids, levels.threshold),
        "low": _one_or_each(mids, levels.low),
        "min_s": options.min_s,
        "merge_gap_s": options.merge_gap_s,
    }


def _one_or_each(mids: list[str], values: Floats) -> float | dict[str, float]:
    rounded = [round(value, 6) for value in values.tolist()]
    return rounded[0] if len(set(rounded)) == 1 else dict(zip(mids, rounded, strict=True))


def _write_table(found: Iterable[pa.Table], place: Path, kind: str, about: dict[str, Any]) -> None:
    with output_file(place) as path, _writer(path, kind, about) as add:
        rows = [EVENTS.empty_table()]
        for table in found:
            rows.append(table)
            if sum(map(len, rows)) >= ROW_GROUP:
                add(pa.concat_tables(rows).unify_dictionaries())
                rows = []
        if rows:
            add(pa.concat_tables(rows).unify_dictionaries())


@contextmanager
def _writer(path: Path, kind: str, about: dict[str, Any]) -> Iterator[Callable[[pa.Table], None]]:
    if kind == "parquet":
        schema = EVENTS.with_metadata({_ABOUT: json.dumps(about).encode()})
        with pq.ParquetWriter(path, schema, compression=COMPRESSION) as writer:
            yield lambda table: writer.write_table(table.replace_schema_metadata(schema.metadata), ROW_GROUP)
        return
    with csv.CSVWriter(str(path), _plain(EVENTS.empty_table()).schema) as lines:
        yield lambda table: lines.write_table(_plain(table))


def _plain(table: pa.Table) -> pa.Table:
    """Return a table of events as text and numbers: times in ISO 8601, scores rounded as half precision allows."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        elif pa.types.is_timestamp(column.type):
            column = pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
        elif pa.types.is_float32(column.type):
            column = pc.round(column, 4)
        columns[name] = column
    return pa.table(columns)


def _write_files(found: Iterable[pa.Table], folder: Path, kind: str, finder: Finder, about: dict[str, Any]) -> None:
    """Write a file for each recording with chunks, also for one without events."""
    tables, (render, suffix) = finder.tables, RENDERERS[kind]
    tagged = {tables.recordings[row]: row for row in finder.recordings if tables.chunks[row]}

    def write_file(recording: str, events: list[Event]) -> None:
        row = tagged.pop(recording)
        rate_hz = tables.table["rate_hz"][row].as_py() or SAMPLE_RATE_HZ
        time = None if np.isnat(tables.time[row]) else f"{tables.time[row]}Z"
        content = Found(recording, float(tables.duration_s[row]), rate_hz, time, about, events)
        write_text(folder / relative_path(recording, suffix), render(content))

    for table in found:
        columns = [table[name].to_pylist() for name in Event._fields]
        names = table["recording"].to_pylist()
        for recording, rows in groupby(zip(names, *columns, strict=True), key=itemgetter(0)):
            write_file(recording, [Event(*values) for _, *values in rows])
    for recording in list(tagged):
        write_file(recording, [])
