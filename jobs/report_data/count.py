"""Count chunks and find the highest scores in one pass over the scores, part by part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.sound_events import reaching, rounded_up
from satpipe.jobs.report_data.contents import NOT_TAGGED, SCORE_STEPS
from satpipe.jobs.report_data.grid import Grid
from satpipe.jobs.report_data.moments import NO_PEAKS, Peaks, peaks
from satpipe.pipeline.tables.chunk_scores import ChunkScores, read_targets
from satpipe.pipeline.tables.open_folder import Ints, Part, Tables, side_by_side
from satpipe.pipeline.tables.targets import Target

MAX_PARTS = 240  # of a recording over time
_HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)  # all half-precision numbers
_Curve = tuple[int, npt.NDArray[np.int64], npt.NDArray[np.uint8]]  # recording, its parts, their highest scores


@dataclass(frozen=True, eq=False)
class _Counted:
    """The counts and highest scores of one block."""

    codes: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    duration_s: Floats
    peak: Floats
    certain: Peaks
    near: Peaks
    curves: list[_Curve]


class Counter:
    """Counts and highest scores of the recordings of a folder.

    Attributes:
        chunks: Number of chunks in each cell; the last entry counts those in no cell, [cells + 1].
        reached: Number of chunks in each cell that reach each level, [K, L, cells + 1].
        duration_s: Total length of the chunks that reach each level, [K, L].
        peak: Highest score of each target that reaches the lowest level, [K].
        certain: Candidates for the most certain moments of each target.
        near: Candidates for moments near any threshold of each target.
        curves: Highest score in each part of each recording shown one by one, in `SCORE_STEPS`, or `NOT_TAGGED`,
            [K, parts].
    """

    def __init__(self, tables: Tables, targets: Sequence[Target], grid: Grid, levels: Floats, shown: Ints) -> None:
        """Start with counts of zero.

        Args:
            tables: The folder.
            targets: Classes and groups, [K].
            grid: Cells of time.
            levels: Thresholds, ascending, [L].
            shown: Recordings that are shown one by one, positions in the tables.
        """
        cells = len(grid.rows) * len(grid.columns) + 1
        self.chunks = np.zeros(cells, np.int64)
        self.reached = np.zeros((len(targets), len(levels), cells), np.uint32)
        self.duration_s = np.zeros((len(targets), len(levels)))
        self.peak = np.zeros(len(targets))
        self.certain = self.near = NO_PEAKS
        self.curves = {
            row: np.full((len(targets), min(MAX_PARTS, int(tables.slots[row]))), NOT_TAGGED, np.uint8)
            for row in shown.tolist()
        }
        self._tables, self._grid, self._targets, self._floor = tables, grid, targets, float(levels[0])
        self._level = np.searchsorted(levels, _HALVES, side="right").astype(np.int16) - 1  # -1: reaches none
        self._level[np.isnan(_HALVES)] = -1
        self._steps = np.floor(np.clip(np.nan_to_num(_HALVES), 0, 1) * SCORE_STEPS + 1e-9).astype(np.uint8)

    def count(self, part: Part) -> None:
        """Read and count the scores of recordings.

        Raises:
            OutputError: A file of scores is damaged or incomplete.
        """
        reached = self.reached.reshape(-1)
        for one in side_by_side(self._count, self._tables.blocks(part)):
            np.add.at(reached, one.codes, 1)
            self.chunks += np.bincount(one.cells, minlength=len(self.chunks))
            self.duration_s += one.duration_s.reshape(self.duration_s.shape)
            self.peak = np.maximum(self.peak, one.peak)
            self.certain = Peaks.together([self.certain, one.certain]).certain()
            self.near = Peaks.together([self.near, one.near]).spread()
            for row, parts, steps in one.curves:
                curve = self.curves[row]
                curve[:, parts] = np.where(curve[:, parts] == NOT_TAGGED, steps, np.maximum(curve[:, parts], steps))
        # So far each chunk is counted only at the highest level that it reaches.
        for level in reversed(range(self.reached.shape[1] - 1)):
            self.reached[:, level] += self.reached[:, level + 1]
            self.duration_s[:, level] += self.duration_s[:, level + 1]

    def _count(self, block: Part) -> _Counted:
        read = read_targets(self._tables, block, self._targets)
        recording = block.recordings[read.clip]
        cells = self._grid.cells(recording, read.start_s)
        chunk, label, score = reaching(read.scores, rounded_up(self._floor, np.float16))
        level = self._level[score.view(np.uint16)]
        counted = level >= 0
        place = label[counted] * self.reached.shape[1] + level[counted]
        length_s = (read.end_s - read.start_s)[chunk[counted]]
        peak = np.zeros(len(self.peak))
        np.maximum.at(peak, label, score)
        tops = peaks((chunk, label, score), recording, read.start_s, read.end_s)
        return _Counted(
            codes=place * len(self.chunks) + cells[chunk[counted]],
            cells=cells,
            duration_s=np.bincount(place, length_s, self.duration_s.size).astype(np.float64),
            peak=peak,
            certain=tops.certain(),
            near=tops.spread(),
            curves=self._curves(block, read),
        )

    def _curves(self, block: Part, read: ChunkScores) -> list[_Curve]:
        """Return the parts of the recordings shown that have chunks in this block, with their highest scores."""
        found = []
        for clip, row in enumerate(block.recordings.tolist()):
            rows = slice(*read.first[clip : clip + 2])
            if row not in self.curves or rows.start == rows.stop:
                continue
            parts = self.curves[row].shape[1]
            part = read.chunk[rows].astype(np.int64) * parts // int(self._tables.slots[row])
            first = np.flatnonzero(np.diff(part, prepend=-1))
            steps = self._steps[read.scores[rows].view(np.uint16)]
            found.append((row, part[first], np.maximum.reduceat(steps, first).T))
        return found
