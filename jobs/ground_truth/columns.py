"""The columns of label files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from satpipe.jobs.ground_truth.clip_names import parse_name, parse_segment
from satpipe.jobs.ground_truth.text_file import NO_VALUE, Table, TextFile, cell_at, is_number, plain, read_number
from satpipe.sat.errors import TruthError
from satpipe.sat.printable import counted

# Names of columns, the first match counts. Case, _ and a unit of seconds at the end are ignored.
LABEL = (
    "mid", "mids", "label mid", "event mid", "positive labels", "event label", "event labels", "label", "labels",
    "annotation", "annotations", "species", "tag", "tags", "tag 1", "class", "classes", "class name", "category",
    "sound class", "event", "display name", "name", "common name",
)  # fmt: skip
NAMES_FIRST = (*LABEL[4:], *LABEL[:4])  # mids last: names of other label sets stand in aliases
CLIP = (
    "segment id", "filename", "file name", "file", "recording", "recording id", "clip", "clip id", "audio filename",
    "audiofilename", "audio file", "audio", "audio id", "fname", "filepath", "file path", "path", "ytid", "youtube id",
    "video id", "begin path", "begin file",
)  # fmt: skip
_JUDGED = ("correct", "present")
_ANSWERS = {
    "yes": True, "present": True, "true": True, "1": True, "no": False, "not present": False, "false": False,
    "0": False, "y": True, "n": False, "unsure": None, "?": None, "": None,
}  # fmt: skip
_AUDIOSET = {
    ("segment id", "start time", "end time", "label"): "AudioSet's strong labels",
    ("segment id", "start time", "end time", "label", "present"): "AudioSet's framed labels",
}  # by header
_SCORE = re.compile(r"\s[01]\.\d+$")  # that `satpipe events` puts behind Audacity's labels
_ONSET = ("onset", "event onset", "onset time", "start", "start time", "starttime", "begin", "begin time")
_OFFSET = ("offset", "event offset", "offset time", "end", "end time", "endtime", "stop", "stop time")


@dataclass(frozen=True)
class Columns:
    """Positions of the columns."""

    clip: int | None  # name of the clip
    label: int  # the label or labels
    onset: int | None = None  # of the event or the clip
    offset: int | None = None
    header: bool = False  # True if the file has one
    rest: bool = False  # True if labels may continue in the next cells, since their commas are not quoted
    scored: bool = False  # True if a score may follow the label in its cell
    in_file: int | None = None  # Raven's start of the event in its file
    selection: tuple[int, int] | None = None  # Raven's number and view of the selection
    sequence: bool = False  # True if Raven's times run through several files
    judged: int | None = None  # whether someone heard the label there
    frames: bool = False  # True if events are cut into frames
    dialect: str = ""  # in words

    @property
    def timed(self) -> bool:
        """True if the file has onsets and offsets."""
        return self.onset is not None and self.offset is not None

    def label_cell(self, cells: list[str]) -> str:
        """Return the label or labels; a number behind them, such as a confidence, is not one."""
        if self.scored:
            return _SCORE.sub("", cell_at(cells, self.label))
        if not self.rest:
            return cell_at(cells, self.label)
        last = len(cells)
        while last > self.label + 1 and is_number(cells[last - 1]):
            last -= 1
        return ", ".join(cells[self.label : last])

    def answer(self, cells: list[str]) -> bool | None:
        """Return whether the label is true; None if nobody knows.

        Raises:
            TruthError: The answer is none of those known.
        """
        return True if self.judged is None else read_answer(cell_at(cells, self.judged))

    def timeless(self, cells: list[str]) -> bool:
        """Return True if a row has neither onset nor offset."""
        return cell_at(cells, self.onset) in NO_VALUE and cell_at(cells, self.offset) in NO_VALUE

    def times(self, cells: list[str]) -> tuple[float, float]:
        """Return onset and offset in seconds.

        Raises:
            TruthError: A time is not a number or is negative, or the offset is before the onset.
        """
        onset_s = read_number(cell_at(cells, self.onset), "onset")
        offset_s = read_number(cell_at(cells, self.offset), "offset")
        in_file_s = 0.0 if self.in_file is None else read_number(cell_at(cells, self.in_file), "file offset")
        earliest_s = min(onset_s, offset_s, in_file_s)
        if earliest_s < 0:
            raise TruthError(f"time {earliest_s:g} s is negative")
        if offset_s < onset_s:
            raise TruthError(f"offset {offset_s:g} s is before onset {onset_s:g} s")
        if self.in_file is None:
            return onset_s, offset_s
        return in_file_s, round(in_file_s + (offset_s - onset_s), 9)  # without the error of the sums

    def clip_name(self, cells: list[str]) -> str:
        """Return the name of a clip with weak labels, followed by start and end if it was cut from a video.

        Raises:
            TruthError: The row has no clip, or its times are not those of a clip.
        """
        if not self.header and len(cells) <= self.label:
            raise TruthError(f"{counted(len(cells), 'cell')} instead of 4: YTID, start, end, labels")
        name = cell_at(cells, self.clip)
        if not name:
            raise TruthError("the clip is missing")
        if not self.timed:
            return name
        start_s, end_s = self.times(cells)
        if start_s == end_s:
            raise TruthError(f"clip {name} starts and ends at {start_s:g} s")
        stem = parse_name(name).stem
        segment = parse_segment(stem)
        if segment and not segment.starts_ms:
            return f"{stem}_{start_s:.3f}_{end_s:.3f}"
        if start_s or segment:
            raise TruthError(f"{name} from {start_s:g} s to {end_s:g} s: weak labels must be of whole clips")
        return name


def read_answer(text: str) -> bool | None:
    """Return the answer in a cell; None if it is unsure or empty.

    Raises:
        TruthError: The answer is none of those known.
    """
    known = plain(text)
    if known not in _ANSWERS:
        raise TruthError(f"{text!r} must be yes, no, unsure or empty, or PRESENT or NOT_PRESENT")
    return _ANSWERS[known]


def weak_columns(table: Table, labels: Sequence[str] = LABEL) -> Columns:
    """Find the columns of weak labels; `labels` are possible names of that of labels, the first match counts.

    Raises:
        TruthError: A column is missing.
    """
    if not table.header or any(map(is_number, table.header)):
        return Columns(0, 3, 1, 2, rest=True, dialect="AudioSet's segment list")
    clip, label = table.column(CLIP), table.column(labels)
    if clip is None or label is None:
        what = "clips" if clip is None else "labels"
        raise TruthError(
            f"{table.path} has no column of {what} among {', '.join(table.header)}. Weak labels must be AudioSet's "
            f"lists (YTID, start, end, labels), or tables with a header such as recording, label{_hint(table)}"
        )
    judged = table.column(_JUDGED)
    dialect = _with_header(table, [clip, label, judged])
    return Columns(
        clip, label, table.column(_ONSET), table.column(_OFFSET), header=True, judged=judged, dialect=dialect
    )


def strong_columns(table: Table, labels: Sequence[str] = LABEL) -> Columns:
    """Find the columns of strong labels; `labels` are possible names of that of labels, the first match counts.

    Raises:
        TruthError: A column is missing.
    """
    if not any(map(is_number, table.header)):
        clip, label, onset, offset = (table.column(names) for names in (CLIP, labels, _ONSET, _OFFSET))
        missing = [n for n, c in (("onsets", onset), ("offsets", offset), ("labels", label)) if c is None]
        if not missing and label is not None:
            raven = clip is not None and table.header[clip] in ("begin path", "begin file")
            in_file = table.column(["file offset"]) if raven else None
            number, view = table.column(["selection"]), table.column(["view"])
            selection = None if number is None or view is None else (number, view)
            judged = table.column(_JUDGED)
            dialect = "Raven selection table" if number is not None and "begin time" in table.header else ""
            return Columns(
                clip, label, onset, offset, header=True, in_file=in_file, selection=selection,
                sequence=raven and in_file is None, judged=judged, frames="present" in table.header,
                dialect=dialect or _AUDIOSET.get(tuple(table.header), "") or table.format * (table.format != "Parquet")
                or _with_header(table, [clip, onset, offset, label, judged]),
            )  # fmt: skip
        if len(table.rows) == 1 or len(missing) < 3:
            raise TruthError(
                f"{table.path} has no column of {' or of '.join(missing)}; its columns are "
                f"{', '.join(table.header)}{_hint(table)}"
            )
    return _without_header(table)


def _without_header(table: Table) -> Columns:
    """Find the columns of a list: the first two numbers side by side are onset and offset, the label follows.

    What stands before them is the clip, and perhaps its scene, as in DCASE.
    """
    rest = isinstance(table, TextFile) and table.delimiter == ","
    for _, row in table.rows:
        numbers = [is_number(cell) for cell in row]
        for onset in range(min(3, len(row) - 2)):
            if numbers[onset] and numbers[onset + 1]:
                before = ("", "clip, ", "clip, scene, ")[onset]
                audacity = not rest and onset == 0 and len(row) == 3
                dialect = "Audacity labels" if audacity else f"list of {before}onset, offset, label"
                label = onset + 2
                clip = 0 if onset else None
                return Columns(clip, label, onset, onset + 1, rest=rest, scored=audacity, dialect=dialect)
    raise TruthError(
        f"{table.path} has no strong labels in a format that satpipe reads: a table with columns for onset, offset, "
        "label (and clip), a Raven selection table with annotations, Audacity labels (onset, offset, label), a list of "
        f"clip, onset, offset, label, JAMS, TextGrid or Parquet{_hint(table)}"
    )


def _with_header(table: Table, columns: Sequence[int | None]) -> str:
    """Describe a table with a header by its columns that are read."""
    names = [table.rows[0][1][column] for column in columns if column is not None]
    return f"{table.format or 'table'} with the columns {', '.join(names)}"


def _hint(table: Table) -> str:
    return table.delimiter_hint() if isinstance(table, TextFile) else ""
