"""The files of several recordings, one after the other, as a program sees them that opens all of them at once."""

from collections.abc import Iterable

import numpy as np
from satpipe.jobs.events.formats import InFile
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.recordings.recording import file_and_channel
from satpipe.pipeline.tables.open_folder import Ints, Tables
from satpipe.sat.errors import ConfigError


class Sequence:
    """The files of recordings in the order of the recordings; channels of a file share it."""

    def __init__(self, tables: Tables, recordings: Ints) -> None:
        """List the files of recordings, given by position; files that no longer exist keep their names without path."""
        paths = _paths(tables.run.get("inputs", []))
        split = tables.run["identity"].get("channels") == "split"
        self._files: dict[str, list[InFile]] = {}
        begin_s: dict[str, float] = {}
        end_s = 0.0
        for row in recordings.tolist():
            recording = tables.recordings[row]
            self._files[recording] = []
            for name, start_s, duration_s in _parts(tables, row, split=split):
                if name not in begin_s:
                    begin_s[name], end_s = end_s, end_s + duration_s
                self._files[recording].append(InFile(paths.get(name, name), start_s, begin_s[name]))

    def find(self, recording: str, start_s: float) -> InFile:
        """Return the file of a recording that contains a second."""
        return [file for file in self._files[recording] if file.start_s <= start_s][-1]


def _parts(tables: Tables, row: int, *, split: bool) -> Iterable[tuple[str, float, float]]:
    """Return name, start in the recording and length in seconds of each of its files."""
    files = tables.table["files"][row].as_py()
    if files:
        return [(each["file"], each["start_s"], each["duration_s"]) for each in files]
    name, _ = file_and_channel(tables.recordings[row], split=split)
    return [(name, 0.0, float(np.nan_to_num(tables.duration_s[row])))]


def _paths(inputs: Iterable[str]) -> dict[str, str]:
    """Return the paths of the files of inputs by name; inputs that no longer exist have none."""
    found: dict[str, str] = {}
    for given in inputs:
        try:
            for source in Search((given,)):
                found.setdefault(source.recording, str(source.path))
        except ConfigError:
            continue
    return found
