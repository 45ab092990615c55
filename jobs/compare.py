"""`satpipe compare`: what another model, or other options, change in the results, class by class.

Two output folders with the same recordings are compared second by second: a stretch of time that a row of each folder
covers counts for both, so rows may have different lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.jobs.events.levels import levels
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.sound_events import rounded_up
from satpipe.jobs.options.results import CompareOptions
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.chunk_scores import SAME_S, ChunkScores, read_targets
from satpipe.pipeline.tables.open_folder import SHOWN, Part, Tables
from satpipe.pipeline.tables.schemas import CHANGES
from satpipe.pipeline.tables.selection import PART_OF_CHUNK, Selection
from satpipe.pipeline.tables.table_files import table_format, table_writer
from satpipe.pipeline.tables.targets import Target
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.printable import counted

SAME_LENGTH_S = 0.1  # recordings whose lengths differ by more are different recordings
_STRETCHES = 16_384  # compared at a time: 69 MB of scores
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The differences between two output folders.

    Attributes:
        table: A row for each class or group, those with the most time found in one folder only first; schema `CHANGES`.
        compared: Number of recordings compared.
        compared_s: Their time that rows of both folders cover.
        only: Recordings that are selected and tagged in one of the two folders only, for each folder.
        lengths: Recordings that have another length in the second folder, and are not compared.
        outs: The folders, as given.
        notes: Warnings about the figures.
    """

    table: pa.Table
    compared: int
    compared_s: float
    only: tuple[tuple[str, ...], tuple[str, ...]]
    lengths: tuple[str, ...]
    outs: tuple[str, str]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if all recordings of both folders are compared."""
        return not (any(self.only) or self.lengths)


def compare(first: str | Path, second: str | Path, options: CompareOptions) -> Comparison:
    """Compare the scores of two output folders of `satpipe tag`.

    Args:
        first: Output folder.
        second: Output folder with the same recordings, tagged with another model or other options.
        options: What is compared.

    Raises:
        OutputError: A folder cannot be read, or they have no recording in common.
        ConfigError: An option is not valid, or the folders are the same.
        LabelError: A class or group is unknown.
        TruthError: A table of thresholds cannot be read, or has none for a class or group.
    """
    if locate(first) == locate(second):
        raise ConfigError(f"{first} is given twice: compare two output folders")
    tables = Tables(first, scores=False), Tables(second, scores=False)
    selection = Selection(options.recordings, since=options.since, until=options.until)
    parts = [selection.part(each) for each in tables]
    named = [_tagged(each, part) for each, part in zip(tables, parts, strict=True)]
    both = [name for name in named[0] if name in named[1]]
    lengths = tuple(name for name in both if abs(named[0][name] - named[1][name]) > SAME_LENGTH_S)
    same = set(both) - set(lengths)
    if not same:
        raise OutputError(f"{first} and {second} have no tagged recording of the same name and length in common")
    ours, theirs = (levels(each, tables[0].folder) for each in options.of_each)
    targets = tuple(target for target in ours.targets if target in theirs.targets)
    thresholds = tuple(each.threshold[[each.targets.index(target) for target in targets]] for each in (ours, theirs))
    counter = _Counter(tables, targets, thresholds)
    for block in tables[0].blocks(parts[0]):
        counter.add(block.take(np.array([tables[0].recordings[row] in same for row in block.recordings], bool)))
    only = tuple(
        tuple(sorted(here.keys() - there.keys())) for here, there in ((named[0], named[1]), (named[1], named[0]))
    )
    notes = (*selection.notes(tables[0]), *(note for each in tables for note in (*each.notes, *each.check_scores())))
    return Comparison(
        counter.table(), len(same), counter.seconds, (only[0], only[1]), lengths, (str(first), str(second)), notes
    )


def _tagged(tables: Tables, part: Part) -> dict[str, float]:
    """Return the lengths of the recordings of a part that have scores."""
    rows = part.recordings[tables.chunks[part.recordings] > 0]
    return {tables.recordings[row]: float(tables.duration_s[row]) for row in rows}


class _Counter:
    """Adds up what two folders have found."""

    def __init__(
        self, tables: tuple[Tables, Tables], targets: tuple[Target, ...], thresholds: tuple[Floats, ...]
    ) -> None:
        self._tables, self._targets, self._thresholds = tables, targets, thresholds
        self.seconds = 0.0
        self._rows = np.zeros((2, len(targets)), np.int64)  # that reach the threshold in each folder
        self._found_s = np.zeros((3, len(targets)))  # in both, only in the first, only in the second
        self._sums = np.zeros((2, len(targets)))  # of scores times seconds

    def add(self, part: Part) -> None:
        """Compare a part of the first folder with the second."""
        if not len(part):
            return
        ours, theirs = self._tables
        names = [ours.recordings[row] for row in part.recordings]
        rows, ratio = theirs.rows(names), ours.model["chunk_s"] / theirs.model["chunk_s"]
        begin = np.floor(part.begin * ratio + PART_OF_CHUNK).astype(np.int32)
        end = np.minimum(np.ceil(part.end * ratio - PART_OF_CHUNK), theirs.slots[rows]).astype(np.int32)
        there = Part(rows, np.minimum(begin, end), end)
        read = read_targets(ours, part, self._targets), read_targets(theirs, there, self._targets)
        reached = [
            each.scores >= rounded_up(limit, each.scores.dtype)
            for each, limit in zip(read, self._thresholds, strict=True)
        ]
        places, seconds = stretches(*read)
        begin_s = part.begin * ours.model["chunk_s"]
        for folder, (each, place) in enumerate(zip(read, places, strict=True)):
            counted = np.unique(place)  # a row that begins earlier belongs to the part before
            counted = counted[each.start_s[counted] >= begin_s[each.clip[counted]] - SAME_S]
            self._rows[folder] += reached[folder][counted].sum(axis=0)
        self.seconds += float(seconds.sum())
        for at in range(0, len(seconds), _STRETCHES):
            here = slice(at, at + _STRETCHES)
            first, second = (hits[place[here]] for hits, place in zip(reached, places, strict=True))
            self._found_s += [seconds[here] @ each for each in (first & second, first & ~second, second & ~first)]
            for folder, (each, place) in enumerate(zip(read, places, strict=True)):
                self._sums[folder] += seconds[here] @ each.scores[place[here]].astype(np.float64)

    def table(self) -> pa.Table:
        """Return the figures, schema `CHANGES`."""
        both_s, first_s, second_s = self._found_s
        means = self._sums / max(self.seconds, 1 / SAMPLE_RATE_HZ)
        order = np.lexsort((-both_s, -(first_s + second_s)))
        columns = {
            "mid": pa.array([target.mid for target in self._targets]),
            "label": pa.array([target.label for target in self._targets]),
            "first_threshold": self._thresholds[0],
            "second_threshold": self._thresholds[1],
            "first_rows": self._rows[0],
            "second_rows": self._rows[1],
            "both_s": both_s,
            "first_only_s": first_s,
            "second_only_s": second_s,
            "first_mean": means[0],
            "second_mean": means[1],
            "mean_difference": means[1] - means[0],
        }
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in CHANGES]
        return pa.table(arrays, schema=CHANGES).take(pa.array(order))


def stretches(first: ChunkScores, second: ChunkScores) -> tuple[tuple[Places, Places], Floats]:
    """Cut the time that rows of two folders cover into stretches of one row of each.

    Args:
        first: Rows of some recordings.
        second: Rows of the same recordings in the same order.

    Returns:
        The rows of the first and of the second folder, [n] each, and the lengths of the stretches in seconds, [n].
    """
    length = np.zeros(len(first.recordings) + 1, np.int64)
    for each in (first, second):
        np.maximum.at(length[1:], each.clip, _samples(each.end_s))
    offset = np.cumsum(length)  # recordings one after the other on one axis
    starts = [_samples(each.start_s) + offset[each.clip] for each in (first, second)]
    ends = [_samples(each.end_s) + offset[each.clip] for each in (first, second)]
    borders = np.unique(np.concatenate([*starts, *ends]))
    begin = borders[:-1]
    places = [np.searchsorted(start, begin, "right") - 1 for start in starts]
    covered = np.ones(len(begin), bool)
    for place, end in zip(places, ends, strict=True):
        covered &= (place >= 0) & (begin < end[place])
    return (places[0][covered], places[1][covered]), np.diff(borders)[covered] / SAMPLE_RATE_HZ


def _samples(seconds: Floats) -> Places:
    return np.rint(seconds * SAMPLE_RATE_HZ).astype(np.int64)


def write(found: Comparison, to: str | Path) -> None:
    """Write the figures to a table whose name ends in .csv, .tsv or .parquet.

    Raises:
        ConfigError: The name has another ending.
        OutputError: The file cannot be written.
    """
    with table_writer(locate(to), table_format(to), CHANGES) as add:
        add(found.table)


def text(found: Comparison) -> list[str]:
    """Return the closing lines of the command."""
    lines = [f"note: {note}" for note in found.notes]
    for out, other, names in zip(found.outs, reversed(found.outs), found.only, strict=True):
        lines += [f"tagged in {out}, not in {other}: {_some(names)}"] if names else []
    lines += [f"not compared, since their lengths differ: {_some(found.lengths)}"] if found.lengths else []
    unit, unit_s = ("h", 3600.0) if found.compared_s >= 3600 else ("s", 1.0)
    lines.append(
        f"compared: {counted(found.compared, 'recording')}, {found.compared_s / unit_s:,.2f} {unit}; {unit} found in"
    )
    lines.append("      both  first only  second only")
    for row in found.table.slice(length=SHOWN * 2).to_pylist():
        times = [row[name] / unit_s for name in ("both_s", "first_only_s", "second_only_s")]
        lines += [f"{times[0]:10,.2f}  {times[1]:10,.2f}  {times[2]:11,.2f}  {row['label']}"] if any(times) else []
    return lines


def _some(names: Sequence[str]) -> str:
    return f"{len(names):,}, such as {', '.join(names[:SHOWN])}"
