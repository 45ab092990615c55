"""The columns of label files."""

from dataclasses import dataclass

from satpipe.jobs.ground_truth.clip_names import parse_name, parse_segment
from satpipe.jobs.ground_truth.text_file import NO_VALUE, TextFile, cell_at, is_number, read_number
from satpipe.sat.errors import TruthError

# Names of columns, the first match counts. Case, _ and a unit of seconds at the end are ignored.
LABEL = (
    "mid", "mids", "label mid", "event mid", "positive labels", "event label", "event labels", "label", "labels",
    "annotation", "annotations", "species", "tag", "tags", "tag 1", "class", "classes", "class name", "category",
    "sound class", "event", "display name", "name", "common name",
)  # fmt: skip
CLIP = (
    "segment id", "filename", "file name", "file", "recording", "recording id", "clip", "clip id", "audio filename",
    "audiofilename", "audio file", "audio", "audio id", "fname", "filepath", "file path", "path", "ytid", "youtube id",
    "video id", "begin path", "begin file",
)  # fmt: skip
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
    in_file: int | None = None  # Raven's start of the event in its file
    selection: tuple[int, int] | None = None  # Raven's number and view of the selection
    sequence: bool = False  # True if Raven's times run through several files

    @property
    def timed(self) -> bool:
        """True if the file has onsets and offsets."""
        return self.onset is not None and self.offset is not None

    def label_cell(self, cells: list[str]) -> str:
        """Return the label or labels."""
        return ", ".join(cells[self.label :]) if self.rest else cell_at(cells, self.label)

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
        return (onset_s, offset_s) if self.in_file is None else (in_file_s, in_file_s + (offset_s - onset_s))

    def clip_name(self, cells: list[str]) -> str:
        """Return the name of a clip with weak labels, followed by start and end if it was cut from a video.

        Raises:
            TruthError: The row has no clip, or its times are not those of a clip.
        """
        if not self.header and len(cells) <= self.label:
            raise TruthError(f"{len(cells)} cells instead of 4: YTID, start, end, labels")
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


def weak_columns(file: TextFile) -> Columns:
    """Find the columns of weak labels.

    Raises:
        TruthError: A column is missing.
    """
    if not file.header or any(map(is_number, file.header)):
        return Columns(0, 3, 1, 2, rest=True)
    clip, label = file.column(CLIP), file.column(LABEL)
    if clip is None or label is None:
        what = "clips" if clip is None else "labels"
        raise TruthError(
            f"{file.path} has no column of {what} among {', '.join(file.header)}. Weak labels must be AudioSet's lists "
            "(YTID, start, end, labels), or tables with a header such as recording, label"
        )
    return Columns(clip, label, file.column(_ONSET), file.column(_OFFSET), header=True)


def strong_columns(file: TextFile) -> Columns:
    """Find the columns of strong labels.

    Raises:
        TruthError: A column is missing.
    """
    if not any(map(is_number, file.header)):
        clip, label, onset, offset = (file.column(names) for names in (CLIP, LABEL, _ONSET, _OFFSET))
        missing = [n for n, c in (("onsets", onset), ("offsets", offset), ("labels", label)) if c is None]
        if not missing and label is not None:
            raven = clip is not None and file.header[clip] in ("begin path", "begin file")
            in_file = file.column(["file offset"]) if raven else None
            number, view = file.column(["selection"]), file.column(["view"])
            selection = None if number is None or view is None else (number, view)
            return Columns(
                clip, label, onset, offset, header=True, in_file=in_file, selection=selection,
                sequence=raven and in_file is None,
            )  # fmt: skip
        if len(file.rows) == 1 or len(missing) < 3:
            raise TruthError(
                f"{file.path} has no column of {' or of '.join(missing)}; its columns are {', '.join(file.header)}"
            )
    rest = file.delimiter == ","
    for _, row in file.rows:
        numbers = [is_number(cell) for cell in row]
        if len(row) >= 4 and numbers[1] and numbers[2]:
            return Columns(0, 3, 1, 2, rest=rest)
        if len(row) >= 3 and numbers[0] and numbers[1]:
            return Columns(None, 2, 0, 1, rest=rest)
    raise TruthError(
        f"{file.path} has no strong labels in a format that satpipe reads: a table with columns for onset, offset, "
        "label (and clip), a Raven selection table with annotations, or Audacity labels (onset, offset, label)"
    )
