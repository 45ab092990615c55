"""Strong labels: the onset and offset of each sound event."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth.aliases import Aliases
from satpipe.jobs.ground_truth.clip_names import clip_of_file, renumber, without_extension
from satpipe.jobs.ground_truth.columns import Columns, strong_columns
from satpipe.jobs.ground_truth.dialects import SUFFIXES, read_table
from satpipe.jobs.ground_truth.text_file import NO_VALUE, cell_at
from satpipe.jobs.ground_truth.vocabulary import Vocabulary, numbered
from satpipe.jobs.metrics.sound_events import Events
from satpipe.jobs.options.results import Unknown
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import TruthError
from satpipe.sat.labels import Label

BEYOND_S = 0.05  # an event that ends by less after its recording is shortened without a note


@dataclass(frozen=True, eq=False)
class StrongLabels:
    """Strong labels of many clips: classes with onset and offset."""

    clips: tuple[str, ...]
    """Names of all listed clips, including those without events."""
    labels: tuple[Label, ...]
    """Classes that occur."""
    events: Events
    """In the order of the file; `clip` is a position in `clips`, `label` one in `labels`."""
    duplicates: int = 0
    """Number of events that repeat another: same clip, class, onset and offset. They are kept."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Labels left out because satpipe does not know them, with their number of occurrences."""
    judged: Events | None = None
    """Where someone judged whether a class occurs, events included; the rest is unknown. None: everywhere."""
    denied: Events = field(default_factory=lambda: Events.of([], [], [], []))
    """Where someone judged that a class does not occur, in the order of the file."""
    dialects: dict[str, int] = field(default_factory=dict)
    """Dialects of the files, in words, with the number of files."""

    @property
    def dialect(self) -> str:
        """Dialects of the files, in words."""
        return ", ".join(f"{each} ({files:,} files)" if files > 1 else each for each, files in self.dialects.items())

    def take(self, clips: npt.NDArray[np.integer]) -> "StrongLabels":
        """Return the clips at the given positions, in that order."""

        def taken(events: Events) -> Events:
            kept, numbers = renumber(events.clip, clips, len(self.clips))
            return replace(events.take(kept), clip=numbers[kept])

        events, judged = taken(self.events), None if self.judged is None else taken(self.judged)
        names, denied = tuple(self.clips[clip] for clip in clips), taken(self.denied)
        return replace(self, clips=names, events=events, duplicates=_duplicates(events), judged=judged, denied=denied)


def read_strong(
    path: str | Path, unknown: Unknown = "error", aliases: Aliases | None = None, vocabulary: Vocabulary | None = None
) -> StrongLabels:
    """Read strong labels: a file, or a folder with a file for each recording.

    Files, times in seconds:

    * Like audioset_eval_strong.tsv: segment_id, start_time_seconds, end_time_seconds, label.
    * A table with a header, separated by tabs, commas or semicolons, or a Parquet file, with columns for clip, onset,
      offset and label under any of the usual names. A row with only a clip lists a clip without events.
    * Such a table with a column `correct` (yes, no, unsure), as a verification sheet, or `present` (PRESENT,
      NOT_PRESENT), as in AudioSet's framed labels: only what was judged is known, and a `no` is not an event. Frames of
      a class that touch are one event.
    * A Raven selection table, with a column Annotation, Species, Label or Tag. `Begin File` or `Begin Path` is the
      recording, `File Offset (s)` the start in it if the table spans several files.
    * An Audacity label file, or any other list without a header: onset, offset, label; clip, onset, offset, label; or
      clip, scene, onset, offset, label.
    * JAMS (annotations of tags, segments or sound events) and Praat's TextGrid (intervals and points with a text).

    A file without a column of clips belongs to the recording with its name: `dawn.txt`, `dawn.wav.csv` and
    `dawn.Table.1.selections.txt` to `dawn.wav`. In a folder, all files with the suffixes .txt, .tsv, .csv, .jams,
    .TextGrid and .parquet are read, including those in subfolders, and an empty file lists a recording without events.

    Args:
        path: Path or URL.
        unknown: Treatment of labels that satpipe does not know; "skip" keeps their clips without these events.
        aliases: Labels of another set; the events have its targets as classes.
        vocabulary: Looks labels up; by default one of AudioSet's classes with these two arguments.

    Raises:
        TruthError: A file cannot be read or has invalid lines; the message lists them.
        LabelError: Labels are unknown to satpipe; the message gives their lines and similar names.
    """
    location = locate(path)
    reader = _Reader(vocabulary or Vocabulary(unknown, aliases))
    if location.is_dir():
        files = sorted(p for p in location.rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
        if not files:
            raise TruthError(f"{location} contains no files with the suffixes {', '.join(SUFFIXES)}")
        named: dict[str, Path] = {}
        for each in files:
            clip = clip_of_file(each.relative_to(location).as_posix())
            other = named.setdefault(without_extension(clip), each)
            if other != each:
                raise TruthError(f"{other} and {each} both belong to recording {clip}: keep one")
            reader.read(each, clip, may_be_empty=True)
    else:
        reader.read(
            location, clip_of_file(location.name), may_be_empty=location.suffix.lower() in (".jams", ".textgrid")
        )
    if not reader.clips:
        raise TruthError(f"{location} lists no clips")
    return reader.labels()


def clipped(labels: StrongLabels, durations_s: npt.ArrayLike) -> tuple[StrongLabels, str]:
    """Limit events to the duration of the recordings, since nothing can be detected beyond the end.

    Args:
        labels: Events of clips that were found.
        durations_s: Of the recording of each clip, [clips]; NaN where unknown, which leaves its events unchanged.

    Returns:
        The labels, and a note on the events that were shortened by more than `BEYOND_S` or left out; "" if none were.
    """
    events = labels.events
    end_s = np.asarray(durations_s, np.float64)[events.clip]
    outside = (events.onset_s >= end_s) & (events.offset_s > end_s)
    over = ~outside & (events.offset_s > end_s + BEYOND_S)
    note = ""
    for row in [*np.flatnonzero(outside)[:1], *np.flatnonzero(over)[:1]][:1]:
        note = (
            f"{over.sum():,} labelled events end after their recording and were shortened, {outside.sum():,} start "
            f"after its end and were left out, such as {labels.labels[events.label[row]].name!r} from "
            f"{events.onset_s[row]:g} s to {events.offset_s[row]:g} s in {labels.clips[events.clip[row]]}, which ends "
            f"at {end_s[row]:g} s"
        )
    kept = replace(events, offset_s=np.fmin(events.offset_s, end_s)).take(~outside)
    return replace(labels, events=kept, duplicates=_duplicates(kept)), note


class _Reader:
    """Collects the events of files."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.clips: dict[str, int] = {}
        self._vocabulary = vocabulary
        self._rows: list[tuple[int, Label, float, float]] = []
        self._answers: list[bool] = []  # of the rows: whether it is an event
        self._dialects: Counter[str] = Counter()
        self._frames = self._judged = False

    def read(self, path: Path, clip: str, *, may_be_empty: bool = False) -> None:
        """Read a file; `clip` is the recording of events whose row gives none."""
        table = read_table(path)
        if not table.rows:
            table.check()
            if not may_be_empty:
                raise TruthError(f"{path} is empty")
            self._clip(clip)
            return
        columns = strong_columns(table, self._vocabulary.columns)
        self._dialects[columns.dialect] += 1
        self._frames |= columns.frames
        self._judged |= columns.judged is not None
        if columns.clip is None or (may_be_empty and len(table.rows) == 1 and columns.header):
            self._clip(clip)
        views: dict[Any, str] = {}
        seen: set[str] = set()
        for number, cells in table.body(columns.header):
            if cells[0].startswith("\\"):  # Audacity's frequency range of the previous label
                continue
            with table.line(number):
                self._row(columns, cells, clip, views, seen)
        table.check()

    def _row(self, columns: Columns, cells: list[str], clip: str, views: dict[Any, str], seen: set[str]) -> None:
        text = columns.label_cell(cells)
        if columns.clip is not None:
            clip = cell_at(cells, columns.clip)
            if not clip:
                raise TruthError("the clip is missing")
            seen.add(clip)
            if columns.sequence and len(seen) > 1:
                raise TruthError("Raven's times run through several files: add the column File Offset (s) in Raven")
            if text in NO_VALUE and columns.timeless(cells):
                self._clip(clip)
                return
        onset_s, offset_s = columns.times(cells)
        if columns.selection:
            selection, view = (cell_at(cells, place) for place in columns.selection)
            if views.setdefault((selection, clip, onset_s, offset_s, text), view) != view:
                return  # Raven writes a selection for each view, such as waveform and spectrogram
        answer = columns.answer(cells)
        label = self._vocabulary.maybe(text)
        place = self._clip(clip)
        if label and answer is not None:
            self._rows.append((place, label, onset_s, offset_s))
            self._answers.append(answer)

    def _clip(self, name: str) -> int:
        return self.clips.setdefault(name, len(self.clips))

    def labels(self) -> StrongLabels:
        """Return the labels of all files."""
        classes, label = numbered(row[1] for row in self._rows)
        clip, _, onset_s, offset_s = zip(*self._rows, strict=True) if self._rows else ([], [], [], [])
        rows = Events.of(clip, label, onset_s, offset_s)
        events = rows.take(np.array(self._answers, bool))
        if self._frames:
            events = events.merged()
        return StrongLabels(
            tuple(self.clips),
            classes,
            events,
            _duplicates(events),
            dict(self._vocabulary.unknown),
            rows.merged() if self._judged else None,
            rows.take(~np.array(self._answers, bool)),
            dict(self._dialects),
        )


def _duplicates(events: Events) -> int:
    ordered = events.sorted()
    columns = (ordered.clip, ordered.label, ordered.onset_s, ordered.offset_s)
    same = [column[1:] == column[:-1] for column in columns]
    return int(np.logical_and.reduce(same).sum())
