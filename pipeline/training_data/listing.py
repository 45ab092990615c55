"""Find the clips of a training set and their labels."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from satpipe.pipeline.recordings.find import Search
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.labels import find

CLIP_TOLERANCE_S = 0.5  # encoders pad


_PATH_COLUMNS = ("path", "file", "filename", "clip", "recording")


_LABEL_COLUMNS = ("labels", "label", "mids", "mid", "positive_labels")


@dataclass(frozen=True)
class Clip:
    """A clip to be.

    Attributes:
        clip: Its name.
        path: Of its file.
        size_bytes: Of the file.
        labels: Places of its classes in the model's outputs; None where nobody labelled it.
    """

    clip: str
    path: str
    size_bytes: int
    labels: tuple[int, ...] | None


@dataclass
class Listing:
    """The clips that a folder and its label table name.

    Attributes:
        clips: Those whose file is there.
        missing: Names in the table that no file in the folder has.
        unlabelled: Files in the folder that the table does not name.
        unknown: Labels that are none of the model's classes, and how often each is named.
    """

    clips: list[Clip]
    missing: list[str]
    unlabelled: int
    unknown: dict[str, int]


def list_clips(
    folder: str, table: Path | None = None, segments: Path | None = None, where: Sequence[tuple[str, str]] = ()
) -> Listing:
    """Find the clips of a folder.

    Args:
        folder: Of audio, searched recursively.
        table: CSV or TSV with a header: a column of paths in the folder (path, file, filename, clip or recording) and,
            if any, one of labels (labels, label, mids, mid or positive_labels): mids, names or indices, separated by
            semicolons, or by commas where they are mids or indices.
        segments: One of AudioSet's CSVs (YouTube id, start, end, quoted mids; comment lines); a file belongs to a
            line if it is named after the id: ID.ext, YID.ext, or either followed by an underscore and anything.
        where: (column, value) pairs that rows of the table must have.

    Raises:
        ConfigError: A file or column is missing, or no clip of the table is in the folder.
    """
    sources = list(Search((folder,)))
    if table is not None:
        rows, column = _table_rows(table, where)
        by_name = {source.recording: source for source in sources}
        names = _by_path
    elif segments is not None:
        rows, column = _segment_rows(segments), "YTID"
        by_name = {}
        for source in sources:
            for name in _youtube_ids(Path(source.recording).stem):
                by_name.setdefault(name, source)
        names = _by_id
    else:
        return Listing([Clip(s.recording, s.path, s.size_bytes, None) for s in sources], [], 0, {})
    clips: list[Clip] = []
    missing: list[str] = []
    unknown: dict[str, int] = {}
    used = set()
    label_column = next((name for name in _LABEL_COLUMNS if rows and name in rows[0]), None)
    for row in rows:
        name = names(row[column])
        if name not in by_name:
            missing.append(row[column])
            continue
        source = by_name[name]
        used.add(source.path)
        labels = None if label_column is None else _indices(row[label_column] or "", unknown)
        clips.append(Clip(name, source.path, source.size_bytes, labels))
    if not clips:
        raise ConfigError(
            f"none of the {len(rows):,} clips in {table or segments} is in {folder}: "
            f"the first of the table is {rows[0][column] if rows else 'nothing'!r}, "
            f"the first in the folder {sources[0].recording if sources else 'nothing'!r}"
        )
    twice = len(clips) - len({clip.clip for clip in clips})
    if twice:
        raise ConfigError(f"{table or segments} names {twice:,} clips more than once")
    return Listing(clips, missing, len(sources) - len(used), unknown)


def _table_rows(path: Path, where: Sequence[tuple[str, str]]) -> tuple[list[dict[str, str]], str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    head = text.partition("\n")[0]
    delimiter = "\t" if "\t" in head else ","
    if delimiter == "\t":
        rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
    columns = list(rows[0]) if rows else [name.strip() for name in head.split(delimiter)]
    column = next((name for name in _PATH_COLUMNS if name in columns), None)
    if column is None:
        raise ConfigError(f"{path} has no column of paths ({', '.join(_PATH_COLUMNS)}); it has {', '.join(columns)}")
    for name, _ in where:
        if name not in columns:
            raise ConfigError(f"{path} has no column {name}; it has {', '.join(columns)}")
    return [row for row in rows if all(row[name] == value for name, value in where)], column


def _segment_rows(path: Path) -> list[dict[str, str]]:
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    rows = []
    for row in csv.reader(lines, skipinitialspace=True):
        if len(row) < 4:
            raise ConfigError(f"{path} is not one of AudioSet's CSVs: {','.join(row)!r} has fewer than 4 fields")
        rows.append({"YTID": row[0], "labels": row[3]})
    return rows


def _youtube_ids(stem: str) -> Iterator[str]:
    """Ids (of 11 characters, which can have underscores themselves) that a file of this name can be of."""
    for name in (stem, stem[1:] if stem.startswith("Y") else stem):
        yield name
        if name[11:12] in ("_", "."):
            yield name[:11]


def _by_path(name: str) -> str:
    return Path(name).as_posix()


def _by_id(name: str) -> str:
    return name


def _indices(text: str, unknown: dict[str, int]) -> tuple[int, ...]:
    """Places in the model's outputs of the labels in a cell; counts those that are not among them."""
    keys = [text] if _index(text) is not None else text.split(";") if ";" in text else text.split(",")
    indices = set()
    for key in filter(None, (key.strip() for key in keys)):
        index = _index(key)
        if index is None:
            unknown[key] = unknown.get(key, 0) + 1
        else:
            indices.add(index)
    return tuple(sorted(indices))


def _index(key: str) -> int | None:
    with suppress(LabelError):
        return find(key).index
    return None
