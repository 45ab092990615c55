"""An output folder to read from: its recordings and selections of their chunks.

A file of a table counts once the recordings table has a file of the same name, see `output_folder`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.pipeline.start_times.resolver import find_zone
from satpipe.pipeline.tables.batches import read_recordings
from satpipe.pipeline.tables.files import REPAIR, open_run, promise
from satpipe.pipeline.tables.schemas import RECORDINGS
from satpipe.pipeline.tables.staged import Staging
from satpipe.pipeline.tables.swap import counted_files, decided, unaccounted
from satpipe.sat.errors import ConfigError, DamageError, OutputError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.cutting import chunk_samples
from satpipe.sat.printable import counted

THREADS = 8  # files read at the same time; each takes the memory of a row group, about 20 MB
BLOCK_CHUNKS = 65_536  # 35 h of SAT-2s: 69 MB of scores
_HALF_ONE = 0x3C00  # bits of 1 in half precision; those of numbers from 0 to 1 are no larger
SHOWN = 5  # names in one message
SEARCHED = 20_000  # names that an unknown name is compared with
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, eq=False)
class Part:
    """Some chunks of some recordings."""

    recordings: Ints
    """Positions in `Tables.recordings`, each once, [R]."""
    begin: Ints
    """First chunk of each, [R]."""
    end: Ints
    """The chunk after its last one, [R]."""

    def __len__(self) -> int:
        """Number of chunks."""
        return int((self.end - self.begin).sum(dtype=np.int64))

    def take(self, rows: npt.NDArray[Any]) -> "Part":
        """Return some of the recordings, by a boolean mask [R] or by position."""
        return Part(self.recordings[rows], self.begin[rows], self.end[rows])


class Tables:
    """An output folder.

    Attributes:
        folder: Its location, a path or a URL.
        run: Content of `run.json`.
        has_scores: True if it has a table of scores.
        table: The recordings table, with the columns of `satpipe.pipeline.tables.schemas.RECORDINGS`.
        recordings: Names of all recordings in the tables, also of those that could not be tagged.
        duration_s: Length of each recording; NaN where nothing could be decoded, [R].
        chunks: Number of chunks of each recording; 0 where nothing could be tagged, [R].
        statuses: Status of each recording, one of `satpipe.pipeline.tables.schemas.STATUSES`.
        time: Start of each recording, UTC; NaT where it is not known, [R].
        promised: For each batch, what `satpipe.pipeline.tables.files.promise` says of its files, by their name.
        notes: Warnings about figures computed from the tables.
    """

    def __init__(self, out: str | Path | None, *, scores: bool = True) -> None:
        """Read the recordings table; scores are not read yet.

        Args:
            out: Output folder, path or URL.
            scores: Require scores.

        Raises:
            OutputError: `out` is not an output folder, has no scores, has other classes than this version, or cannot
                be read.
            DamageError: A file is damaged, missing, or not where it belongs; the message names it.
        """
        while True:
            self.folder, self.run = open_run(out)
            exchange = decided(self.folder)
            try:
                self._read(scores)
                return
            except DamageError:
                if (open_run(out)[1], decided(self.folder)) == (self.run, exchange):
                    raise  # or batches were replaced in the meantime

    def _read(self, scores: bool) -> None:
        self.has_scores = bool(self.run.get("identity", {}).get("scores", False))
        if scores:
            self._check_scores()
        paths = counted_files(self.folder)
        parts = list(side_by_side(read_recordings, paths))
        self.table: pa.Table = pa.concat_tables(parts) if parts else RECORDINGS.empty_table()
        self.recordings: tuple[str, ...] = tuple(self.table["recording"].to_pylist())
        self.duration_s: Floats = np.array(self.table["duration_s"].to_numpy(), np.float64)
        self.chunks: Ints = np.array(self.table["chunks"].to_numpy(), np.int32)
        self.statuses: tuple[str, ...] = tuple(self.table["status"].to_pylist())
        self.time: npt.NDArray[np.datetime64] = self.table["time"].to_numpy()
        self.notes = self._notes()
        self._clock_rate: Floats = self.table["clock_rate"].fill_null(1.0).to_numpy()
        self._files = [path.name for path in paths]
        self.promised = {name: promise(part) for name, part in zip(self._files, parts, strict=True)}
        for path, problem in unaccounted(self.folder, self.run, self.promised.keys()):
            raise DamageError(f"{path} {problem}")
        self._file = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self._place = {name: number for number, name in enumerate(self.recordings)}
        if len(self._place) < len(self.recordings):
            twice = next(n for n, name in enumerate(self.recordings) if self._place[name] > n)
            first, second = (self._files[self._file[n]] for n in (twice, self._place[self.recordings[twice]]))
            place = self.folder / "recordings"
            raise DamageError(f"{place / second} has recordings that {place / first} has, too: {REPAIR}")

    @cached_property
    def model(self) -> dict[str, Any]:
        """The model that computed the scores.

        Keys are arch, source, sha256, cut, memory ("on" or "off"), delay_s, grids, combine, precision, chunk_samples
        (from the start of a row to the start of the next, at 16 kHz) and chunk_s. The `run.json` of satpipe 0.1 does
        not have all of them; there, a model with a memory used it.
        """
        try:
            identity, model = self.run["identity"], self.run.get("model", {})
            samples = model.get("chunk_samples") or chunk_samples(get_config(identity["arch"]), identity["cut"])
            if "memory" not in identity or "delay_s" not in identity:
                config = get_config(identity["arch"])
                own = {"memory": "on" if config.streaming else "off", "delay_s": float(config.script_chunk_s)}
                identity = own | identity
            return {
                "arch": identity["arch"],
                "source": model.get("source"),
                "sha256": identity["model_sha256"],
                "cut": identity["cut"],
                "memory": identity["memory"],
                "delay_s": identity["delay_s"],
                "grids": identity.get("grids", 1),
                "combine": identity.get("combine", "geometric"),
                "precision": identity["precision"],
                "chunk_samples": samples,
                "chunk_s": samples / SAMPLE_RATE_HZ,
            }
        except (KeyError, TypeError, ConfigError) as error:
            raise OutputError(f"{self.folder}: run.json does not contain the model of the scores: {error}") from error

    @cached_property
    def zone(self) -> ZoneInfo:
        """Time zone of local times: the option `--time-zone` of the last run, else UTC."""
        return find_zone(self.zone_given)

    @property
    def zone_given(self) -> str | None:
        """The option `--time-zone` of the last run; None if it was not given."""
        return (self.run.get("clock") or {}).get("time_zone")

    @cached_property
    def slots(self) -> Ints:
        """Number of the chunk after each recording's last one, [R].

        This is the number of its chunks, unless some are missing: a worker died, or a recorder left out what was quiet.
        """
        all_chunks = np.ceil(self.duration_s / self.model["chunk_s"] - 1e-9)
        died = np.array(self.statuses, object) == "worker died"
        with_gaps = (died | (all_chunks - self.chunks > 1)) & (self.chunks > 0)
        return np.where(with_gaps, np.fmax(all_chunks, self.chunks), self.chunks).astype(np.int32)

    def utc(self, recordings: Ints, seconds: npt.ArrayLike) -> npt.NDArray[np.datetime64]:
        """Return the times, in UTC, at seconds of the clocks of recordings after their start; NaT if unknown.

        Shape:
            Positions of recordings [n], seconds [n] -> [n]
        """
        true_us = np.asarray(seconds) * self._clock_rate[recordings] * 1e6
        time: npt.NDArray[np.datetime64] = self.time[recordings] + np.rint(true_us).astype("timedelta64[us]")
        return time

    def seconds(self, recordings: Ints, utc: np.datetime64 | npt.NDArray[np.datetime64]) -> Floats:
        """Return the seconds from the start of recordings, by position, to times in UTC; NaN if unknown, [n]."""
        return (utc - self.time[recordings]) / np.timedelta64(1, "s") / self._clock_rate[recordings]

    def choose(self, recordings: str | Iterable[str] | None = None) -> Ints:
        """Return the positions of recordings, each once, given a name, a pattern or several; by default all, by name.

        Raises:
            OutputError: No recording has that name or matches the pattern; the message gives the nearest names.
        """
        if recordings is None:
            return np.array(sorted(range(len(self.recordings)), key=self.recordings.__getitem__), np.int32)
        found: dict[int, None] = {}
        for name in [recordings] if isinstance(recordings, str) else recordings:
            here = [self._place[name]] if name in self._place else self._matching(name)
            found.update(dict.fromkeys(here))
        return np.array(list(found), np.int32)

    def _matching(self, pattern: str) -> list[int]:
        found = [n for n, name in enumerate(self.recordings) if fnmatchcase(name, pattern)]
        if not found:
            raise OutputError(f"{self.folder} has no recording {pattern}{self._nearest(pattern)}")
        return sorted(found, key=self.recordings.__getitem__)

    def _nearest(self, name: str) -> str:
        near = get_close_matches(name, islice(self.recordings, SEARCHED), n=3)
        return (
            f"; did you mean {' or '.join(near)}?" if near else f"; it has {counted(len(self.recordings), 'recording')}"
        )

    def part(self, recordings: Ints) -> Part:
        """Return all chunks of recordings, given by position."""
        return Part(recordings, np.zeros(len(recordings), np.int32), self.slots[recordings])

    def by_file(self, recordings: Ints) -> list[tuple[str, npt.NDArray[np.bool_]]]:
        """Return the files that contain recordings, given by position, each with a mask of its recordings [R].

        The names, the same in each table, are in the order of the first recording's name.
        """
        file = self._file[recordings]
        first: dict[int, str] = {}
        for number, row in zip(file.tolist(), recordings.tolist(), strict=True):
            first[number] = min(first.get(number, self.recordings[row]), self.recordings[row])
        return [(self._files[number], file == number) for number in sorted(first, key=first.__getitem__)]

    def blocks(self, part: Part) -> Iterator[Part]:
        """Cut a part into blocks of at most `BLOCK_CHUNKS` chunks, each of recordings of one file.

        Files are in the order of `by_file`, recordings of a file in that of the part, chunks in that of time.
        """
        part = part.take(part.end > part.begin)
        for _, here in self.by_file(part.recordings):
            yield from _cut(part.take(here), BLOCK_CHUNKS)

    def rows(self, names: Sequence[str] | None = None) -> Ints:
        """Return the positions of recordings by name; by default all, in the order of the tables.

        Raises:
            OutputError: A recording does not exist.
        """
        if names is None:
            return np.arange(len(self.recordings), dtype=np.int32)
        unknown = [name for name in names if name not in self._place]
        if unknown:
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else self._nearest(unknown[0])
            raise OutputError(f"{self.folder} has no recording {', '.join(unknown[:SHOWN])}{more}")
        return np.array([self._place[name] for name in names], np.int32)

    def check_scores(self) -> tuple[str, ...]:
        """Check that the scores can be read; return a note if there are none, so that those in the tags are used.

        Raises:
            OutputError: The scores are of other classes than those of this version, or of an unknown model.
        """
        if self.has_scores:
            self._check_scores()
            return ()
        identity = self.run.get("identity", {})
        gaps = "; in a recording with gaps, only chunks with tags count" if (self.slots > self.chunks).any() else ""
        return (
            f"{self.folder} has no scores, so tags are used: scores below {identity.get('threshold', 'a minimum')} and "
            f"below the {identity.get('top_k', 'first')} highest of a chunk count as 0{gaps}",
        )

    def _check_scores(self) -> None:
        if not self.has_scores:
            raise OutputError(
                f"{self.folder} has no scores of chunks: run `satpipe tag ... --scores` into another folder"
            )
        _check_labels(self.folder, self.run.get("labels", []))
        self.model  # noqa: B018  (an error if run.json does not contain it)

    def _notes(self) -> tuple[str, ...]:
        if "finished" in self.run and not Staging(self.folder).count():
            return ()
        return (f"{self.folder} is not finished: recordings may be missing; the same `satpipe tag` command continues",)


def side_by_side(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield the results of a function for each item, in order; a few run at the same time, in threads.

    One more waits, so that no thread does while a result is used.
    """
    threads = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[_Out]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def codes(column: pa.ChunkedArray, place: Mapping[str, int]) -> Ints:
    """Return the positions of the values of a dictionary-coded column, given those of all values; -1 for others."""
    parts = [np.empty(0, np.int32)]
    for part in column.chunks:
        places = np.array([place.get(value, -1) for value in part.dictionary.to_pylist()], np.int32)
        parts.append(places[part.indices.to_numpy()])
    return np.concatenate(parts)


def all_numbers(scores: npt.NDArray[Any]) -> bool:
    """Return True if no score is NaN or infinite. Scores in half precision from 0 to 1 cost one fast pass."""
    if scores.dtype == np.float16 and scores.view(np.uint16).max(initial=0) <= _HALF_ONE:
        return True
    return bool(np.isfinite(scores).all())


def _cut(part: Part, at_most: int) -> Iterator[Part]:
    """Cut a part into blocks of at most this many chunks."""
    stop = np.cumsum(part.end - part.begin, dtype=np.int64)
    start = stop - (part.end - part.begin)
    for low in range(0, len(part), at_most):
        here = (stop > low) & (start < low + at_most)
        begin = np.maximum(part.begin, part.begin + (low - start)).astype(np.int32)
        end = np.minimum(part.end, part.begin + (low + at_most - start)).astype(np.int32)
        yield Part(part.recordings[here], begin[here], end[here])


def _check_labels(out: str | Path, labels: list[dict[str, Any]]) -> None:
    """Check that the scores are in the order of this version's classes."""
    theirs = [label.get("mid") for label in labels]
    ours = [label.mid for label in weak_labels()]
    if theirs == ours:
        return
    where = next((n for n, (their, our) in enumerate(zip(theirs, ours, strict=False)) if their != our), None)
    if where is None:
        raise OutputError(f"{out} has scores of {len(theirs)} classes, this version of satpipe knows {len(ours)}")
    raise OutputError(
        f"{out} has other classes than this version of satpipe: index {where} is {theirs[where]}, not {ours[where]}"
    )
