"""Find the clips of a training set and their labels."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from satpipe.pipeline.recordings.find import Search, Source
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.labels import find
from satpipe.sat.printable import counted

_PATH_COLUMNS = ("path", "file", "filename", "clip", "recording")
_LABEL_COLUMNS = ("labels", "label", "mids", "mid", "positive_labels")
_Rows = list[tuple[str, str | None]]  # name of a clip and its labels; None where the table has no labels


@dataclass(frozen=True)
class Clip:
    """A clip to put into a training set.

    Attributes:
        labels: Indices of its classes in the model's outputs; None if it is not labelled.
    """

    name: str
    path: str
    size_bytes: int
    labels: tuple[int, ...] | None


@dataclass
class Listing:
    """The clips in a folder and its label table.

    Attributes:
        clips: Clips whose file exists.
        missing: Names in the table that match no file in the folder.
        unlabelled: Number of files in the folder that are not in the table.
        unknown: Labels that are not classes of the model, and the number of times that each occurs.
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
        folder: Folder of audio, searched recursively.
        table: CSV or TSV with a header: a column of paths in the folder (path, file, filename, clip or recording) and,
            optionally, one of labels (labels, label, mids, mid or positive_labels): mids, names or indices, separated
            by semicolons, or by commas if they are mids or indices.
        segments: One of AudioSet's CSV files (YouTube id, start, end, quoted mids; comment lines). A file belongs to a
            line if its name is ID.ext or YID.ext, or either of these with an underscore and any text after the id.
        where: (column, value) pairs that rows of the table must have.

    Raises:
        ConfigError: A file or column is missing, or no clip of the table is in the folder.
    """
    sources = list(Search((folder,)))
    if table is not None:
        rows, by_name = _table_rows(table, where), {source.recording: source for source in sources}
    elif segments is not None:
        rows, by_name = _segment_rows(segments), _by_youtube_id(sources)
    else:
        return Listing([Clip(s.recording, s.path, s.size_bytes, None) for s in sources], [], 0, {})
    clips: list[Clip] = []
    missing: list[str] = []
    unknown: dict[str, int] = {}
    for given, cell in rows:
        name = Path(given).as_posix()
        source = by_name.get(name)
        if source is None:
            missing.append(given)
        else:
            labels = None if cell is None else _indices(cell, unknown)
            clips.append(Clip(name, source.path, source.size_bytes, labels))
    if not clips:
        raise ConfigError(
            f"{table or segments} has {counted(len(rows), 'clip')}, of which {folder} has none: "
            f"the first clip in the table is {rows[0][0] if rows else 'nothing'!r}, "
            f"the first in the folder {sources[0].recording if sources else 'nothing'!r}"
        )
    repeated = len(clips) - len({clip.name for clip in clips})
    if repeated:
        raise ConfigError(f"{table or segments} names {counted(repeated, 'clip')} more than once")
    return Listing(clips, missing, len(sources) - len({clip.path for clip in clips}), unknown)


def text_of(path: Path) -> str:
    """Return the text of a table, which may be compressed by gzip.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _table_rows(path: Path, where: Sequence[tuple[str, str]]) -> _Rows:
    text = text_of(path)
    if "\t" in text.partition("\n")[0]:
        reader = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(io.StringIO(text))
    columns = list(reader.fieldnames or ())
    column = next((name for name in _PATH_COLUMNS if name in columns), None)
    if column is None:
        raise ConfigError(f"{path} has no column of paths ({', '.join(_PATH_COLUMNS)}); it has {', '.join(columns)}")
    for name, _ in where:
        if name not in columns:
            raise ConfigError(f"{path} has no column {name}; it has {', '.join(columns)}")
    labels = next((name for name in _LABEL_COLUMNS if name in columns), None)
    rows = (row for row in reader if all(row[name] == value for name, value in where))
    return [(row[column] or "", None if labels is None else row[labels] or "") for row in rows]


def _segment_rows(path: Path) -> _Rows:
    lines = [line for line in text_of(path).splitlines() if line.strip() and not line.startswith("#")]
    rows = list(csv.reader(lines, skipinitialspace=True))
    for row in rows:
        if len(row) < 4:
            raise ConfigError(f"{path} is not one of AudioSet's CSV files: {','.join(row)!r} has fewer than 4 fields")
    return [(row[0], row[3]) for row in rows]


def _by_youtube_id(sources: Sequence[Source]) -> dict[str, Source]:
    """Map YouTube ids to files; of several files with the same id, the first is used."""
    found: dict[str, Source] = {}
    for source in sources:
        for name in _youtube_ids(Path(source.recording).stem):
            found.setdefault(name, source)
    return found


def _youtube_ids(stem: str) -> Iterator[str]:
    """Yield the ids (11 characters, which may include underscores) that a file name can start with."""
    for name in (stem, stem[1:] if stem.startswith("Y") else stem):
        yield name
        if name[11:12] in ("_", "."):
            yield name[:11]


def _indices(text: str, unknown: dict[str, int]) -> tuple[int, ...]:
    """Return the class indices of the labels in a cell; count unknown labels."""
    keys = [text] if _index(text) is not None else text.split(";") if ";" in text else text.split(",")
    indices = set()
    for key in filter(None, map(str.strip, keys)):
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
