"""The files that recordings in an output folder were read from, and the sound of stretches of them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.recordings.libsndfile import SndFile
from satpipe.pipeline.recordings.recording import AudioInfo, Part, file_and_channel
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.schemas import since_1970_us
from satpipe.sat.errors import AudioError, ConfigError


@dataclass(frozen=True)
class _File:
    """A file of a recording, as it was when it was tagged."""

    start_s: float
    """Its start in the recording."""
    name: str
    size_bytes: int
    modified_us: int


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound of a stretch of a recording."""

    samples: Samples
    """Mono, as tagged: one channel, or the mean of all; [n]."""
    rate_hz: int
    start_s: float
    """Start in the recording, in seconds."""


class SourceFiles:
    """The files of recordings, provided that they have not changed since they were tagged."""

    def __init__(self, tables: Tables, recordings: Iterable[str], moved_to: str | Path | None = None) -> None:
        """Search the inputs in `run.json` for the files of recordings.

        Args:
            tables: The folder.
            recordings: Names of recordings.
            moved_to: Where the inputs are now, if they have moved; copies need not have the old time of change.

        Raises:
            OutputError: A recording is not in the tables.
            ConfigError: `moved_to` does not exist.
        """
        channels = tables.run["identity"].get("channels", "mix")
        self._split, self._number = channels == "split", int(channels) if channels.isdecimal() else None
        names = list(dict.fromkeys(recordings))
        self._files = dict(zip(names, self._listed(tables, names), strict=True))
        wanted = {file.name for files in self._files.values() for file in files}
        self._found: dict[str, Source] = {}
        self._headers: dict[str, AudioInfo] = {}
        self._moved = moved_to is not None
        for source in Search((str(moved_to),)) if moved_to else _sources(tables.run.get("inputs", [])):
            if source.recording in wanted:
                self._found.setdefault(source.recording, source)
                if len(self._found) == len(wanted):
                    break

    def _listed(self, tables: Tables, names: Sequence[str]) -> Iterator[list[_File]]:
        """Yield the files that each recording was read from, in order."""
        table = tables.table.take(pa.array(tables.rows(names)))
        modified = pc.cast(table["modified"], pa.int64()).to_pylist()
        columns = (table["size_bytes"].to_pylist(), modified, table["files"].to_pylist())
        for name, size_bytes, modified_us, files in zip(names, *columns, strict=True):
            if files:
                yield [_File(f["start_s"], f["file"], f["size_bytes"], since_1970_us(f["modified"])) for f in files]
            else:
                yield [_File(0.0, file_and_channel(name, split=self._split)[0], size_bytes, modified_us)]

    def paths(self, recording: str) -> list[tuple[float, str]]:
        """Return start in the recording, in seconds, and path of each of its files; the name of a file that is gone."""
        found = ((file, self._found.get(file.name)) for file in self._files[recording])
        return [(file.start_s, str(source.path) if source else file.name) for file, source in found]

    def channel(self, recording: str) -> int | None:
        """Return the channel that was tagged, counted from 1; None for the mean of all."""
        return self._number or file_and_channel(recording, split=self._split)[1]

    def read(
        self,
        recording: str,
        start_s: float,
        end_s: float,
        rate_hz: int | None = None,
        kept_open: dict[str, SndFile] | None = None,
    ) -> Sound:
        """Return the sound of a stretch of a recording, which ends earlier if the recording does.

        Only this stretch is decoded. It begins at the sample at or before `start_s`; in formats without exact seeking,
        it may begin a few milliseconds earlier or later.

        Args:
            recording: One of those given at first.
            start_s: Start in the recording, in seconds.
            end_s: End, in seconds.
            rate_hz: Sampling rate wanted; None for that of the recording.
            kept_open: As for `Reader`.

        Raises:
            AudioError: A file no longer exists, has changed, cannot be read, or ends before this stretch.
        """
        info = self._info(recording, start_s, end_s)
        rate_hz = rate_hz or info.rate_hz
        start = int(max(0.0, start_s) * rate_hz + 1e-6)
        path = "" if info.parts else self._file(self._files[recording][0]).path
        reader = Reader(path, info, self.channel(recording), start, rate_hz, kept_open=kept_open)
        samples = _first(reader, max(1, int(end_s * rate_hz + 1e-6) - start))
        return Sound(samples, rate_hz, start / rate_hz)

    def _info(self, recording: str, start_s: float, end_s: float) -> AudioInfo:
        """Return the header of a recording; of joined files, only those with a part of this stretch are opened."""
        files = self._files[recording]
        if len(files) == 1:
            return self._header(files[0])
        ends = [*(file.start_s for file in files[1:]), np.inf]
        some = [file for file, end in zip(files, ends, strict=True) if end > start_s and file.start_s < end_s]
        headers = [self._header(file) for file in some]
        first = headers[0]
        parts = tuple(
            Part(self._file(file), info, round(file.start_s * first.rate_hz))
            for file, info in zip(some, headers, strict=True)
        )
        return replace(first, frames=parts[-1].end, parts=parts, layouts=())

    def _header(self, file: _File) -> AudioInfo:
        source = self._file(file)
        if file.name not in self._headers:
            self._headers[file.name] = probe(source.path, source.size_bytes)
        return self._headers[file.name]

    def _file(self, file: _File) -> Source:
        source = self._found.get(file.name)
        if source is None:
            raise AudioError("its file no longer exists")
        same_time = self._moved or source.modified_us == file.modified_us
        if source.size_bytes != file.size_bytes or not same_time:
            raise AudioError("its file has changed since it was tagged")
        return source


def _sources(inputs: Sequence[str]) -> Iterator[Source]:
    """Yield the files of inputs, skipping inputs that no longer exist."""
    for given in inputs:
        try:
            yield from Search((given,))
        except ConfigError:
            continue


def _first(reader: Reader, samples: int) -> Samples:
    """Return the first samples of a reader.

    Raises:
        AudioError: The reader has no samples, or a file cannot be read.
    """
    found: list[Samples] = []
    size = 0
    with closing(reader.blocks()) as blocks:
        for block in blocks:
            found.append(block)
            size += len(block)
            if size >= samples:
                break
    if not size:
        raise AudioError(reader.problem or "its file ends before this moment")
    return np.concatenate(found)[:samples]
