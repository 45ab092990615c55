"""Find the files that an output folder has rows of, and those that remain to be tagged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from satpipe.jobs.options.tag import TagOptions
from satpipe.pipeline.recordings.deployments import Deployment, fingerprint
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import file_and_channel
from satpipe.pipeline.start_times.from_names import NameParser
from satpipe.pipeline.tables.schemas import since_1970_us

Fingerprint = tuple[str, int, int]
"""Name, size and time stamp of a file."""
_COLUMNS = ["recording", "size_bytes", "modified", "channels", "status", "files"]


@dataclass(frozen=True)
class _Row:
    """A row of the recordings table."""

    recording: str
    files: tuple[Fingerprint, ...]  # one, or several that are joined
    rows: int  # that these files must have: one, or one per channel
    again: bool  # True if it must be tagged again in any case


class AlreadyTagged:
    """The rows of an output folder, by file."""

    def __init__(self, recordings: pa.Table, options: TagOptions) -> None:
        """Take the recordings table of the folder, and the options of the run."""
        self._join = options.join
        self._by_file: dict[str, list[_Row]] = defaultdict(list)
        rows = recordings.select(_COLUMNS)
        columns = [pc.cast(rows[name], pa.int64()) if name == "modified" else rows[name] for name in _COLUMNS]
        for name, size_bytes, modified_us, channels, status, files in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            file, channel = file_and_channel(name, split=options.channels == "split")
            joined = tuple((each["file"], each["size_bytes"], since_1970_us(each["modified"])) for each in files or ())
            row = _Row(
                recording=name,
                files=joined or ((file, size_bytes, modified_us),),
                rows=(channels or 1) if channel else 1,
                again=options.retry_failed and status != "ok",
            )
            for file, *_ in row.files:
                self._by_file[file].append(row)

    def remaining(self, sources: Sequence[Source], names: NameParser) -> list[Source]:
        """Return the files that are not in the tables, or have changed since.

        If files are joined, all files of a recorder with such a file are returned: they may form other deployments.

        Args:
            sources: All files.
            names: Finds the recorder of a file.
        """
        if not self._join:
            return [source for source in sources if not self._is_tagged(source)]
        recorders: dict[str, list[Source]] = defaultdict(list)
        for source in sources:
            recorders[names.recorder(source.recording)].append(source)
        incomplete = {name for name, files in recorders.items() if not all(map(self._is_tagged, files))}
        return [source for source in sources if names.recorder(source.recording) in incomplete]

    def remaining_joined(self, joined: Iterable[Source]) -> tuple[list[Source], set[str]]:
        """Return the deployments and single files that remain to be tagged, and the outdated rows to remove.

        Args:
            joined: Deployments and single files, from all files of some recorders.
        """
        remaining: list[Source] = []
        rows: set[str] = set()
        kept: set[str] = set()
        for source in joined:
            files = source.fingerprints if isinstance(source, Deployment) else (fingerprint(source),)
            same = [row for row in self._by_file[files[0][0]] if row.files == files and not row.again]
            if same and len(same) >= same[0].rows:
                kept.update(row.recording for row in same)
            else:
                remaining.append(source)
            rows.update(row.recording for name, *_ in files for row in self._by_file[name])
        return remaining, rows - kept

    def outdated(self, remaining: Iterable[Source]) -> frozenset[str]:
        """Return the rows of files that are tagged again; if files are joined, these are not known yet."""
        files = () if self._join else remaining
        return frozenset(row.recording for source in files for row in self._by_file[source.recording])

    def without_files(self, sources: Iterable[Source]) -> frozenset[str]:
        """Return the rows whose files no longer exist."""
        existing = {source.recording for source in sources}
        rows = (row for rows in self._by_file.values() for row in rows)
        return frozenset(row.recording for row in rows if not any(name in existing for name, *_ in row.files))

    def _is_tagged(self, source: Source) -> bool:
        """Return True if the tables contain the whole file in its current state."""
        rows = self._by_file.get(source.recording, [])
        return (
            bool(rows)
            and len(rows) >= rows[0].rows
            and not any(row.again or fingerprint(source) not in row.files for row in rows)
        )
