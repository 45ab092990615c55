"""Count events and recorded time in the cells of an activity table, in one pass over the scores."""

from threading import Lock

import numpy as np
import numpy.typing as npt
from satpipe.jobs.activity.cells import Cells
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.metrics.arrays import Ints, run_starts
from satpipe.pipeline.tables.chunk_scores import SAME_S, ChunkScores


class Counter:
    """The activity in cells.

    Attributes:
        recorded_s: Length of the tagged audio, [C].
        events: Number of events that begin there, [C, T].
        active_s: Length of the events there, [C, T].
    """

    def __init__(self, finder: Finder, cells: Cells) -> None:
        """Read the scores and count.

        Raises:
            OutputError: A file of scores, named in the message, is damaged or has too few rows.
        """
        shape = len(cells), len(finder.levels.targets)
        self.recorded_s = np.zeros(len(cells))
        self.events = np.zeros(shape, np.int32)
        self.active_s = np.zeros(shape)
        self._peak = np.zeros(shape, np.int16)  # bits of half-precision numbers: positive ones sort by them
        self._cells, self._lock = cells, Lock()
        for runs in finder.found(self._see):
            events = runs.events
            pieces = cells.divided(finder.rows_of(events.clip), events.onset_s, events.offset_s)
            label = events.label[pieces.stretch]
            np.add.at(self.active_s, (pieces.cell, label), pieces.seconds)
            begins = pieces.nth == 0
            np.add.at(self.events, (pieces.cell[begins], label[begins]), 1)

    @property
    def peak(self) -> npt.NDArray[np.float32]:
        """The highest score of the chunks there, [C, T]."""
        return self._peak.view(np.float16).astype(np.float32)

    def _see(self, recordings: Ints, chunks: ChunkScores) -> None:
        """Count the recorded seconds of a block of chunks, and find the highest scores."""
        if not len(chunks):
            return
        clip, start_s, end_s = chunks.clip, chunks.start_s, chunks.end_s
        apart = np.zeros(len(clip), bool)
        apart[1:] = start_s[1:] - end_s[:-1] > SAME_S
        first = run_starts(clip, np.cumsum(apart))
        last = np.append(first[1:], len(clip)) - 1
        recorded = self._cells.divided(recordings[clip[first]], start_s[first], end_s[last])
        pieces = self._cells.divided(recordings[clip], start_s, end_s)
        if not len(pieces.cell):
            return
        scores, again = chunks.scores.view(np.int16), pieces.nth > 0
        whole = pieces.stretch[~again]
        starts = run_starts(pieces.cell[~again])
        cells = np.concatenate([pieces.cell[~again][starts], pieces.cell[again]])
        # Chunks that a border divides are in both cells.
        inside, across = scores if len(whole) == len(scores) else scores[whole], scores[pieces.stretch[again]]
        highest = np.concatenate([np.maximum.reduceat(inside, starts, axis=0), across])
        order = np.argsort(cells, kind="stable")
        starts = run_starts(cells[order])
        highest, cells = np.maximum.reduceat(highest[order], starts, axis=0), cells[order][starts]
        with self._lock:
            np.add.at(self.recorded_s, recorded.cell, recorded.seconds)
            self._peak[cells] = np.maximum(self._peak[cells], highest)
