"""The files of several recordings, one after the other, as a program sees them that opens all of them at once."""

import numpy as np
from satpipe.jobs.events.formats import InFile
from satpipe.pipeline.tables.open_folder import Ints, Tables
from satpipe.pipeline.tables.source_files import SourceFiles


class Sequence:
    """The files of recordings in the order of the recordings; channels of a file share it."""

    def __init__(self, tables: Tables, recordings: Ints) -> None:
        """List the files of recordings, given by position; of a file that no longer exists, only the name is known."""
        names = [tables.recordings[row] for row in recordings]
        sources = SourceFiles(tables, names)
        self._files: dict[str, list[InFile]] = {}
        begin_s: dict[str, float] = {}
        end_s = 0.0
        for recording, duration_s in zip(names, np.nan_to_num(tables.duration_s[recordings]).tolist(), strict=True):
            files = sources.paths(recording)
            ends_s = [*(start_s for start_s, _ in files[1:]), duration_s]
            self._files[recording] = []
            for (start_s, path), until_s in zip(files, ends_s, strict=True):
                if path not in begin_s:
                    begin_s[path], end_s = end_s, end_s + (until_s - start_s)
                self._files[recording].append(InFile(path, start_s, begin_s[path]))

    def find(self, recording: str, start_s: float) -> InFile:
        """Return the file of a recording that contains a second."""
        return [file for file in self._files[recording] if file.start_s <= start_s][-1]
