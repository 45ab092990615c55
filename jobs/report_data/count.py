"""One pass over the scores, piece by piece, that keeps what a page can show of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from satpipe.jobs.events.options import LOW_SHARE
from satpipe.jobs.metrics.sound_events import Floats, reaching, rounded_up
from satpipe.jobs.report_data.contents import SCORE_STEPS
from satpipe.jobs.report_data.grid import Grid
from satpipe.jobs.report_data.moments import Peaks, peaks
from satpipe.pipeline.tables.chunk_scores import ChunkScores, read_chunks
from satpipe.pipeline.tables.open_folder import Ints, Part, Tables, side_by_side
from satpipe.sat.model.config import CLASSES

MOST_PARTS = 240  # of a recording over time
_BITS = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)  # every number of half precision


@dataclass(frozen=True, eq=False)
class _Counted:
    """What a piece adds."""

    codes: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    duration_s: Floats
    peak: Floats
    certain: Peaks
    doubtful: Peaks
    curves: list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint8]]]


class Counter:
    """Counts and highest scores of the recordings of a folder.

    Attributes:
        chunks: In each cell, and last those in none, [cells + 1].
        reached: Chunks of each cell that reach each level, [K, L, cells + 1].
        duration_s: Length together of the chunks that reach each level, [K, L].
        peak: Highest score of each class that reaches the lowest level, [K].
        certain: Of each class, candidates for the most certain moments.
        doubtful: The same for the most doubtful ones.
        curves: Of each recording shown one by one, the highest score in each part, in `SCORE_STEPS`, [K, parts].
    """

    def __init__(
        self, tables: Tables, columns: tuple[int, ...], grid: Grid, levels: Floats, threshold: float, shown: Ints
    ) -> None:
        """Say what is wanted.

        Args:
            tables: The folder.
            columns: Classes, positions in the model's outputs, [K].
            grid: Cells of time.
            levels: Thresholds, rising, [L].
            threshold: That of moments.
            shown: Recordings that are shown one by one, positions in the tables.
        """
        cells = len(grid.rows) * len(grid.columns) + 1
        self.chunks = np.zeros(cells, np.int64)
        self.reached = np.zeros((len(columns), len(levels), cells), np.uint32)
        self.duration_s = np.zeros((len(columns), len(levels)))
        self.peak = np.zeros(len(columns))
        nothing = peaks((np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float16)), *_NO_CHUNKS)
        self.certain = self.doubtful = nothing
        self.curves = {
            row: np.zeros((len(columns), min(MOST_PARTS, int(tables.slots[row]))), np.uint8) for row in shown.tolist()
        }
        self._tables, self._grid, self._threshold = tables, grid, threshold
        self._columns = None if columns == tuple(range(CLASSES)) else columns
        self._floor = min(levels[0], LOW_SHARE * threshold)
        self._level = np.searchsorted(levels, _BITS, side="right").astype(np.int16) - 1  # -1: reaches none
        self._level[np.isnan(_BITS)] = -1
        steps = np.floor(np.clip(np.nan_to_num(_BITS), 0, 1) * SCORE_STEPS + 1e-9)
        self._steps = steps.astype(np.uint8)

    def count(self, part: Part) -> None:
        """Read the scores of recordings.

        Raises:
            OutputError: A file of scores is damaged, or lacks rows; it is named.
        """
        reached = self.reached.reshape(-1)
        for one in side_by_side(self._count, self._tables.pieces(part)):
            np.add.at(reached, one.codes, 1)
            self.chunks += np.bincount(one.cells, minlength=len(self.chunks))
            self.duration_s += one.duration_s
            self.peak = np.maximum(self.peak, one.peak)
            self.certain = Peaks.together([self.certain, one.certain]).certain(self._threshold)
            self.doubtful = Peaks.together([self.doubtful, one.doubtful]).doubtful(self._threshold)
            for row, parts, steps in one.curves:
                curve = self.curves[row]
                curve[:, parts] = np.maximum(curve[:, parts], steps)
        # So far each chunk counts at the highest level that it reaches; it reaches those below too.
        for level in reversed(range(self.reached.shape[1] - 1)):
            self.reached[:, level] += self.reached[:, level + 1]
            self.duration_s[:, level] += self.duration_s[:, level + 1]

    def _count(self, piece: Part) -> _Counted:
        read = read_chunks(self._tables, piece, self._columns)
        recording = piece.recordings[read.clip]
        cells = self._grid.cells(recording, read.start_s)
        found = reaching(read.scores, rounded_up(self._floor, np.float16))
        chunk, label, score = found
        level = self._level[score.view(np.uint16)]
        counted = level >= 0
        place = label[counted] * self.reached.shape[1] + level[counted]
        length_s = (read.end_s - read.start_s)[chunk[counted]]
        runs = score >= rounded_up(LOW_SHARE * self._threshold, np.float16)
        peak = np.zeros(len(self.peak))
        np.maximum.at(peak, label, score)
        tops = peaks((chunk[runs], label[runs], score[runs]), recording, read.start_s, read.end_s)
        return _Counted(
            codes=place * len(self.chunks) + cells[chunk[counted]],
            cells=cells,
            duration_s=np.bincount(place, length_s, self.duration_s.size)
            .reshape(self.duration_s.shape)
            .astype(np.float64),
            peak=peak,
            certain=tops.certain(self._threshold),
            doubtful=tops.doubtful(self._threshold),
            curves=self._curves(piece, read),
        )

    def _curves(self, piece: Part, read: ChunkScores) -> list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """Of each recording shown, which parts the piece has chunks of, and their highest scores."""
        found = []
        for clip, row in enumerate(piece.recordings.tolist()):
            rows = slice(*read.first[clip : clip + 2])
            if row not in self.curves or rows.start == rows.stop:
                continue
            parts = self.curves[row].shape[1]
            part = read.chunk[rows].astype(np.int64) * parts // int(self._tables.slots[row])
            first = np.flatnonzero(np.diff(part, prepend=-1))
            steps = self._steps[read.scores[rows].view(np.uint16)]
            found.append((row, part[first], np.maximum.reduceat(steps, first).T))
        return found


_NO_CHUNKS = (np.empty(0, np.int32), np.empty(0), np.empty(0))
