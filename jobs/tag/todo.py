"""What an output folder holds of each file already, and so what is left to be tagged."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from satpipe.jobs.options.tag import TagOptions
from satpipe.pipeline.recordings.deployments import Deployment, fingerprint
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.start_times.from_names import NameParser
from satpipe.pipeline.tables.output_folder import Output

State = tuple[str, int, int]
"""Name, size and time stamp of a file."""
_READ = ["recording", "size_bytes", "modified", "channels", "status", "files"]


@dataclass(frozen=True)
class _Row:
    """A row of the recordings table.

    Attributes:
        recording: Its name.
        files: What it was made of: a file, or several that are joined.
        rows: How many there are of these files: one, or one for each channel.
        again: It is to be tagged again in any case.
    """

    recording: str
    files: tuple[State, ...]
    rows: int
    again: bool


class Held:
    """The rows of an output folder, by file."""

    def __init__(self, output: Output | None, options: TagOptions) -> None:
        """Read them.

        Args:
            output: The folder; None for an empty one.
            options: What is wanted of it.

        Raises:
            OutputError: A table is not readable.
        """
        self._join = options.join
        self._by_file: dict[str, list[_Row]] = defaultdict(list)
        rows = output.batches.recordings(_READ) if output else pa.table({name: [] for name in _READ})
        columns = [pc.cast(rows[name], pa.int64()) if name == "modified" else rows[name] for name in _READ]
        for name, size_bytes, modified_ns, channels, status, files in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            file, mark, _ = name.rpartition("#ch") if options.channels == "split" else ("", "", "")
            states = tuple((each["file"], each["size_bytes"], each["modified"].value) for each in files or ())
            row = _Row(
                recording=name,
                files=states or ((file if mark else name, size_bytes, modified_ns),),
                rows=(channels or 1) if mark else 1,
                again=options.retry_failed and status != "ok",
            )
            for state in row.files:
                self._by_file[state[0]].append(row)

    def todo(self, sources: Sequence[Source], names: NameParser) -> list[Source]:
        """Return the files that the tables do not hold as they are now.

        Where files are joined, those are all of a recorder of which one is not held: they may make other deployments.

        Args:
            sources: All files.
            names: Tell of which recorder they are.
        """
        if not self._join:
            return [source for source in sources if not self._holds(source)]
        recorders: dict[str, list[Source]] = defaultdict(list)
        for source in sources:
            recorders[names.recorder(source.recording)].append(source)
        unsettled = {name for name, files in recorders.items() if not all(map(self._holds, files))}
        return [source for source in sources if names.recorder(source.recording) in unsettled]

    def left(self, joined: Iterable[Source]) -> tuple[list[Source], set[str]]:
        """Return which of the deployments and single files are not held, and the rows of theirs that are not valid.

        Args:
            joined: What is to be tagged of the files of some recorders, all of theirs.
        """
        left: list[Source] = []
        rows: set[str] = set()
        kept: set[str] = set()
        for source in joined:
            files = source.fingerprints if isinstance(source, Deployment) else (fingerprint(source),)
            same = [row for row in self._by_file[files[0][0]] if row.files == files and not row.again]
            if same and len(same) >= same[0].rows:
                kept.update(row.recording for row in same)
            else:
                left.append(source)
            rows.update(row.recording for name, *_ in files for row in self._by_file[name])
        return left, rows - kept

    def stale(self, todo: Iterable[Source]) -> frozenset[str]:
        """Return the rows of files that are tagged again; which those are is not known yet where files are joined."""
        files = () if self._join else todo
        return frozenset(row.recording for source in files for row in self._by_file[source.recording])

    def gone(self, sources: Iterable[Source]) -> frozenset[str]:
        """Return the rows of files none of which is there any more."""
        there = {source.recording for source in sources}
        rows = (row for rows in self._by_file.values() for row in rows)
        return frozenset(row.recording for row in rows if not any(name in there for name, *_ in row.files))

    def _holds(self, source: Source) -> bool:
        """Whether the file as it is now is in the tables, whole."""
        rows = self._by_file.get(source.recording, [])
        return (
            bool(rows)
            and len(rows) >= rows[0].rows
            and not any(row.again or fingerprint(source) not in row.files for row in rows)
        )
