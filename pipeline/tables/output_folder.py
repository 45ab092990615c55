r"""The output folder: what is in it, what may be added, and how it stays whole whatever happens.

    run.json                what made the tables
    log/TIME-RUN.log        what ran where and how long, a file for each run
    tags/ID.parquet         \
    scores/ID.parquet        } one batch of finished recordings
    recordings/ID.parquet   /
    _staged/UNIT.parquet    scores of spans that no batch holds yet

A file is written under another name and renamed when it is whole. Of a batch, the recordings file comes last: with it
the batch counts, without it the next run removes the rest and publishes again from what is staged. A batch that
replaces others names them in its recordings file, so that they go even if the run dies in between.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from satpipe.pipeline.storage import is_remote, locate, written_whole
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.staged import _OUTCOMES, SpanKey, SpanOutcome, StagedFile, StagedSpan
from satpipe.sat.errors import OutputError
from satpipe.sat.model.config import CLASSES

TABLES = tuple(schemas.SCHEMAS)


COMPRESSION = "zstd"


ROW_GROUP_CHUNKS = 16_384  # 17 MB of half-precision scores


_REPLACES = b"satpipe.replaces"


@dataclass
class Finished:
    """A recording that is ready to be published.

    Attributes:
        row: Its row of the recordings table.
        spans: Its staged spans, in the order of time; none for a recording without scores.
    """

    row: dict[str, Any]
    spans: list[StagedSpan] = field(default_factory=list)


@dataclass(frozen=True)
class TableOptions:
    """What decides on the rows of the tables, and in whose name they are written.

    Attributes:
        run_id: Of the run, as in `run.json`.
        chunk_samples: From the start of a chunk to the start of the next, at 16 kHz.
        threshold: Least score of a row of the tags table.
        top_k: Most rows of the tags table for one chunk.
        scores: Whether the scores table is written.
    """

    run_id: str
    chunk_samples: int
    threshold: float
    top_k: int
    scores: bool


class Output:
    """An output folder."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
            folder: Path or URL.
        """
        self.folder = locate(folder)
        self._staged = self.folder / "_staged"

    @contextmanager
    def claim(self, run: dict[str, Any], *, overwrite: bool = False) -> Iterator[None]:
        """Hold the folder for this run: no other may write to it meanwhile.

        In an object store, where nothing can be locked, the run that comes later takes over, and the earlier one stops
        at its next batch.

        Args:
            run: What is to be written to `run.json`; its `identity` must be that of the tables already there.
            overwrite: Remove the tables already there.

        Raises:
            OutputError: Another run holds it, it cannot be written, or holds other tables.
        """
        with self._lock():
            self._prepare(run, overwrite)
            yield

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if is_remote(self.folder):
            yield
            return
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise OutputError(f"{self.folder} is being written by another satpipe; let it finish first") from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _prepare(self, run: dict[str, Any], overwrite: bool) -> None:
        if overwrite:
            self._clear()
        self._check(run)
        self.note(run)
        for name in (*TABLES, "_staged"):
            if not is_remote(self.folder) and (name != "scores" or run["identity"]["scores"]):
                (self.folder / name).mkdir(exist_ok=True)
        self._recover()

    def run(self) -> dict[str, Any] | None:
        """Return what `run.json` says, or None where there is none."""
        try:
            run = json.loads((self.folder / "run.json").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.folder / 'run.json'} cannot be read: {error}") from error
        return run if isinstance(run, dict) else {}

    def note(self, run: dict[str, Any]) -> None:
        """Write `run.json`."""
        with self._whole(self.folder / "run.json") as path:
            path.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")

    @contextmanager
    def log(self, name: str) -> Iterator[Path]:
        """Give a file to write a log to, line by line; in an object store it appears at the end."""
        path = self.folder / "log" / name
        if is_remote(path):
            with self._whole(path) as temporary:
                yield temporary
        else:
            path.parent.mkdir(exist_ok=True)
            yield path

    def last_log(self) -> list[str]:
        """Return the lines of the latest log."""
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.name)
        return logs[-1].read_text(encoding="utf-8").splitlines() if logs else []

    def is_claimed(self) -> bool:
        """Whether a run holds the folder at present; not to be told in an object store."""
        if is_remote(self.folder) or not self.folder.exists():
            return False
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        lock.release()
        return False

    def recordings(self, columns: list[str] | None = None) -> pa.Table:
        """Return the recordings table.

        Raises:
            OutputError: A file of it is not readable; it is named.
        """
        parts = [table for _, table in self.recordings_by_file()]
        none = pa.Table.from_batches([], schemas.RECORDINGS)  # not empty_table(), which imports pandas
        return pa.concat_tables([none, *parts]).select(columns or schemas.RECORDINGS.names)

    def recordings_by_file(self) -> Iterator[tuple[str, pa.Table]]:
        """Yield the files of the recordings table: name and content, with all columns.

        Raises:
            OutputError: One is not readable; it is named.
        """
        for path in sorted((self.folder / "recordings").glob("*.parquet")):
            yield path.name, read_recordings(path)

    def replace_recordings(self, name: str, recordings: pa.Table) -> None:
        """Write a file of the recordings table anew: the same recordings, with other times."""
        self._commit(name, recordings)

    def staged(self) -> dict[SpanKey, StagedSpan]:
        """Return the spans that are staged, from earlier runs or this one."""
        found = {}
        for path in sorted(self._staged.glob("*.parquet")):
            try:
                outcomes = self._outcomes(path)
            except OutputError:  # damaged: what it held is tagged again
                path.unlink()
                continue
            for place, outcome in enumerate(outcomes):
                found[outcome.key] = StagedSpan(path.name, place, outcome, len(outcomes))
        return found

    def count_staged(self) -> int:
        """Return how many units of work are staged."""
        return sum(1 for _ in self._staged.glob("*.parquet"))

    @contextmanager
    def stage(self) -> Iterator["StagedFile"]:
        """Give a file to write the scores of a unit to, for a batch to take them up later.

        Raises:
            OutputError: The disk is full, or something else is in the way.
        """
        name = new_name()
        options = {"compression": COMPRESSION, "use_dictionary": False, "write_statistics": False}
        with (
            self._whole(self._staged / name) as path,
            pq.ParquetWriter(path, schemas.STAGED, **options) as writer,
        ):
            yield StagedFile(name, writer)

    def finish(self) -> None:
        """Remove what is staged: everything wanted is published."""
        self._recover()
        for path in self._staged.glob("*"):
            path.unlink(missing_ok=True)
        if not is_remote(self.folder):
            self._staged.rmdir()

    def discard(self, files: Iterable[str]) -> None:
        """Remove staged files."""
        for name in set(files):
            (self._staged / name).unlink(missing_ok=True)

    def publish(self, batch: list[Finished], options: TableOptions, name: str) -> None:
        """Write a batch of finished recordings into the tables, and remove what was staged of them.

        Done twice under the same `name` (from `new_name`), as when a worker is lost on the way, it counts once.

        Raises:
            OutputError: The disk is full, or something else is in the way; what is staged stays.
        """
        if (self.folder / "recordings" / name).exists():
            self._discard_published(batch)
            return
        with ExitStack() as stack:
            tags = stack.enter_context(self._writer("tags", name, schemas.TAGS))
            scores = stack.enter_context(self._writer("scores", name, schemas.SCORES)) if options.scores else None
            self._fill(batch, options, tags, scores)
            if (self.run() or {}).get("id") != options.run_id:
                # A worker can outlive its run, killed, for a moment; its rows must not stand beside the new run's.
                raise OutputError(f"{self.folder} was taken over by another run")
        self._commit(name, pa.Table.from_pylist([finished.row for finished in batch], schema=schemas.RECORDINGS))
        self._discard_published(batch)

    def _discard_published(self, batch: list[Finished]) -> None:
        """Remove staged files of which this batch holds all; others wait for `finish`."""
        spans = [span for finished in batch for span in finished.spans]
        held = Counter(span.file for span in spans)
        self.discard(span.file for span in spans if held[span.file] == span.spans)

    def remove(self, recordings: set[str]) -> None:
        """Remove all rows of some recordings; batches that hold any are written anew without them."""
        for path in sorted((self.folder / "recordings").glob("*.parquet")):
            table = read_recordings(path)
            gone = pc.is_in(table["recording"], pa.array(recordings, pa.string()))
            if not pc.any(gone).as_py():
                continue
            batch = new_name()
            for name in ("tags", "scores"):
                if (self.folder / name / path.name).exists():
                    self._copy_without(self.folder / name, path.name, batch, recordings)
            self._commit(batch, table.filter(pc.invert(gone)), replaces=path.name)
            self._remove_batch(path.name)

    def _fill(self, batch: list[Finished], options: TableOptions, tags: "_Rows", scores: "_Rows | None") -> None:
        for finished, rows in self._staged_rows(batch):
            chunks = rows["chunk"].to_numpy()
            values = rows["scores"].combine_chunks().flatten().to_numpy().reshape(-1, CLASSES)
            recording, duration_s = finished.row["recording"], finished.row["duration_s"]
            times = schemas.chunk_times(chunks, options.chunk_samples, duration_s)
            tags.add(
                schemas.tag_rows(recording, chunks, values, times, threshold=options.threshold, top_k=options.top_k)
            )
            if scores is not None:
                scores.add(schemas.score_rows(recording, chunks, values, times))

    def _staged_rows(self, batch: list[Finished]) -> Iterator[tuple[Finished, pa.Table]]:
        """Yield the staged rows of a batch, a row group of a span at a time."""
        spans = ((finished, span) for finished in batch for span in finished.spans)
        for name, together in groupby(spans, key=lambda pair: pair[1].file):
            wanted = {span.place: finished for finished, span in together}
            for rows in self._row_groups(self._staged / name):
                for place in pc.unique(rows["span"]).to_pylist():
                    if place in wanted:
                        yield wanted[place], rows.filter(pc.equal(rows["span"], place))

    def _commit(self, name: str, recordings: pa.Table, replaces: str = "") -> None:
        if replaces:
            recordings = recordings.replace_schema_metadata({_REPLACES: replaces.encode()})
        with self._whole(self.folder / "recordings" / name) as path:
            pq.write_table(recordings, path, compression=COMPRESSION)

    def _copy_without(self, folder: Path, old: str, new: str, recordings: set[str]) -> None:
        gone = pa.array(recordings, pa.string())
        schema = schemas.SCHEMAS[folder.name]
        with self._writer(folder.name, new, schema) as rows:
            for table in self._row_groups(folder / old):
                rows.add(table.filter(pc.invert(pc.is_in(pc.cast(table["recording"], pa.string()), gone))))

    def _recover(self) -> None:
        """Remove what a run that died left half done."""
        recordings = self.folder / "recordings"
        for path in sorted(recordings.glob("*.parquet")):
            replaced = self._metadata(path).get(_REPLACES, b"").decode() if path.exists() else ""
            if replaced:
                self._remove_batch(replaced)
        for name in (*TABLES, "_staged"):
            for path in (self.folder / name).glob("*"):
                whole = path.suffix == ".parquet" and not path.name.startswith(".")
                counted = name == "_staged" or (recordings / path.name).exists()
                if not (whole and counted):
                    path.unlink()

    def _remove_batch(self, name: str) -> None:
        for table in ("recordings", "tags", "scores"):
            (self.folder / table / name).unlink(missing_ok=True)

    def _check(self, run: dict[str, Any]) -> None:
        there = self.run()
        if there is None:
            strange = [name for name in TABLES if any((self.folder / name).glob("*"))]
            if strange:
                raise OutputError(f"{self.folder} holds {' and '.join(strange)} but no run.json: choose another folder")
            return
        theirs, ours = there.get("identity", {}), run["identity"]
        differ = [f"{key} {theirs.get(key)!r}, now {ours[key]!r}" for key in ours if theirs.get(key) != ours[key]]
        if differ:
            raise OutputError(
                f"{self.folder} was made with another {'; '.join(differ)}. Choose another folder, or --overwrite it"
            )

    def _clear(self) -> None:
        if self.run() is None:
            return
        for name in (*TABLES, "_staged"):
            for path in (self.folder / name).glob("*"):
                path.unlink()
        (self.folder / "run.json").unlink()

    def _row_groups(self, path: Path) -> Iterator[pa.Table]:
        with ExitStack() as stack:
            with reading(path):
                table = pq.ParquetFile(stack.enter_context(path.open("rb")))
            for group in range(table.num_row_groups):
                with reading(path):
                    rows = table.read_row_group(group)
                yield rows

    def _metadata(self, path: Path) -> dict[bytes, bytes]:
        with reading(path), path.open("rb") as file:
            return dict(pq.read_metadata(file).metadata or {})

    def _outcomes(self, path: Path) -> list[SpanOutcome]:
        outcomes = json.loads(self._metadata(path).get(_OUTCOMES, b"[]"))
        return [SpanOutcome(**{**outcome, "key": tuple(outcome["key"])}) for outcome in outcomes]

    @contextmanager
    def _writer(self, table: str, name: str, schema: pa.Schema) -> Iterator["_Rows"]:
        compact = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        with (
            self._whole(self.folder / table / name) as path,
            pq.ParquetWriter(path, schema, compression=COMPRESSION, use_dictionary=compact) as writer,
        ):
            rows = _Rows(writer)
            yield rows
            rows.flush()

    @contextmanager
    def _whole(self, path: Path) -> Iterator[Path]:
        """Give a name to write to that becomes `path` when all is written, and goes when it is not."""
        try:
            with written_whole(path) as temporary:
                yield temporary
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.folder} cannot be written: {error.strerror or error}")


class _Rows:
    """Collects tables into row groups of a useful size."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._rows += len(table)
        if self._rows >= ROW_GROUP_CHUNKS:
            self.flush()

    def flush(self) -> None:
        if self._tables:
            table = pa.concat_tables(self._tables).unify_dictionaries()
            self._writer.write_table(table, row_group_size=max(1, len(table)))
            self._tables, self._rows = [], 0


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file where reading a table fails.

    Raises:
        OutputError: It cannot be read, or is no table.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{path} cannot be read, or is not a table of satpipe's: {error}") from error


def read_recordings(path: Path) -> pa.Table:
    """Read a file of the recordings table; columns that earlier versions did not write are null.

    Raises:
        OutputError: It cannot be read, or is no such table.
    """
    with reading(path), path.open("rb") as file:
        table = schemas.complete(pq.read_table(file))
        if not set(schemas.RECORDINGS.names) <= set(table.column_names):
            raise OutputError(f"{path} is no table of recordings as satpipe writes it")
        return table.select(schemas.RECORDINGS.names).cast(schemas.RECORDINGS)


def new_name() -> str:
    """Return a file name that no other has."""
    return f"{uuid.uuid4().hex}.parquet"
