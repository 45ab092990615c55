"""True labels: read in the formats people keep them in, and joined to recordings.

Weak labels say that a class occurs in a clip, strong labels from when to when. Classes are joined by mid, or by a name
where a file has no mids; a clip is joined to a recording by its name, see `match`.

Formats: AudioSet's segment lists (Gemmeke et al., ICASSP 2017) and strong labels (Hershey et al., ICASSP 2021), tables
with a header as in DCASE and sed_eval, Raven's selection tables, Audacity's label files, `onset, offset, label`.
Files are UTF-8; lines that start with # are comments; decimals take a point.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from jobs.metrics.events import Events, Floats, Ints
from pipeline.find import EXTENSIONS
from pipeline.location import locate
from sat.errors import ConfigError, LabelError, SatpipeError, TruthError
from sat.labels import Label, ancestors, find, strong_labels, weak_labels

Unknown = Literal["error", "skip"]
"""What becomes of a label that satpipe does not know: an error, or it is left out and counted."""

SHOWN = 5  # bad lines, or names, in one message
BEYOND_S = 0.05  # an event that ends so little after its recording is cut, and not worth a word
CLASS_SETS = ("381", "407", "416", "527")

# Names of columns, the first one that is there counts. Case, _ and a unit of seconds at the end do not matter.
_MID = ("mid", "mids", "label mid", "event mid")
_LABEL = (
    *_MID, "positive labels", "event label", "event labels", "label", "labels", "annotation", "annotations", "species",
    "tag", "tags", "tag 1", "class", "classes", "class name", "category", "sound class", "event", "display name",
    "name", "common name",
)  # fmt: skip
_CLIP = (
    "segment id", "filename", "file name", "file", "recording", "recording id", "clip", "clip id", "audio filename",
    "audiofilename", "audio file", "audio", "audio id", "fname", "filepath", "file path", "path", "ytid", "youtube id",
    "video id", "begin path", "begin file",
)  # fmt: skip
_ONSET = ("onset", "event onset", "onset time", "start", "start time", "starttime", "begin", "begin time")
_OFFSET = ("offset", "event offset", "offset time", "end", "end time", "endtime", "stop", "stop time")
_UNIT = re.compile(r" *(\( *s(ec(onds)?)? *\)| s| sec| seconds)$")

_NO_VALUE = ("", "nan", "NaN")  # the latter two where pandas wrote an empty cell
_TRUTH_FILES = (".txt", ".tsv", ".csv")
_RAVEN_FILE = re.compile(r"(\.Table\.\d+)?\.selections?$", re.IGNORECASE)
_CHANNEL = re.compile(r"#ch\d+$")  # how `tag --channels split` names the channels of a recording
_SEGMENT = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?", re.ASCII)
_SHORTEST_MS = 1000  # two whole numbers in a name that lie closer are seconds


@dataclass(frozen=True, eq=False)
class WeakTruth:
    """Weak labels of many clips: which classes occur in each."""

    source: str
    """Where they were read."""
    clips: tuple[str, ...]
    """Names of all clips listed, also of those without a label; AudioSet's as YTID_START_END in seconds."""
    labels: tuple[Label, ...]
    """Classes that occur."""
    clip: Ints
    """Of each pair of a clip and a class: position in `clips`, [n]."""
    label: Ints
    """Of each pair: position in `labels`, [n]."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Labels left out because satpipe does not know them, and how often each occurred."""

    def take(self, clips: npt.NDArray[np.integer]) -> "WeakTruth":
        """Return some clips, by position, in the order given."""
        kept, numbers = _renumber(self.clip, clips, len(self.clips))
        names = tuple(self.clips[clip] for clip in clips)
        return replace(self, clips=names, clip=numbers[kept], label=self.label[kept])


@dataclass(frozen=True, eq=False)
class StrongTruth:
    """Strong labels of many clips: from when to when each class is heard."""

    source: str
    """Where they were read."""
    clips: tuple[str, ...]
    """Names of all clips listed, also of those without an event."""
    labels: tuple[Label, ...]
    """Classes that occur."""
    events: Events
    """In the order of the file; `clip` is a position in `clips`, `label` one in `labels`."""
    duplicates: int = 0
    """How many of the events repeat another one: same clip, class, onset and offset. They stay in."""
    views: int = 0
    """Rows left out because Raven writes a selection once for each view, such as waveform and spectrogram."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Labels left out because satpipe does not know them, and how often each occurred."""

    def take(self, clips: npt.NDArray[np.integer]) -> "StrongTruth":
        """Return some clips, by position, in the order given."""
        kept, numbers = _renumber(self.events.clip, clips, len(self.clips))
        events = replace(self.events.take(kept), clip=numbers[kept])
        names = tuple(self.clips[clip] for clip in clips)
        return replace(self, clips=names, events=events, duplicates=_duplicates(events))


@dataclass(frozen=True, eq=False)
class Match:
    """Which recording each clip is; see `match`."""

    clip: Ints
    """Positions in the list of clips of those found, ascending, [n]."""
    recording: Ints
    """Of each of them: position in the list of recordings, [n]."""
    missing: tuple[str, ...]
    """Clips that no recording was found for."""
    unlisted: tuple[str, ...]
    """Recordings that no clip was found for."""
    by: dict[str, int]
    """How many were found by "mapping", "name", "YouTube id and start", "YouTube id"."""


@dataclass(frozen=True, eq=False)
class Within:
    """True events cut to what the recordings hold; see `within`."""

    truth: StrongTruth
    """With no event beyond the end of its recording."""
    clipped: int
    """Events that ended more than `BEYOND_S` after their recording, and now end with it."""
    dropped: int
    """Events that began when their recording had ended, and are left out."""
    example: str
    """One of those, for a person; "" if there are none."""


def read_weak(path: str | Path, unknown: Unknown = "error") -> WeakTruth:
    """Read weak labels.

    Either AudioSet's segment lists, `YTID, start, end, "mid,mid"`, with or without comments and quotes. Or a table
    with a header that has a column of clips (recording, filename, ...) and one of labels (mid, label, labels, ...):
    a row for each clip or one for each label. Several labels in a cell are mids separated by commas, or mids or names
    separated by ; or |.

    Args:
        path: Path or URL.
        unknown: What becomes of a label that satpipe does not know.

    Raises:
        TruthError: It cannot be read, or has lines that are not right: they are named.
        LabelError: It has labels that satpipe does not know; lines and nearest names are given.
    """
    file = _File(locate(path))
    columns = _weak_columns(file)
    vocabulary = _Vocabulary(unknown)
    clips: dict[str, int] = {}
    seen: dict[str, tuple[int, bool]] = {}  # of a clip: its last line, and whether that was one of several
    pairs: dict[tuple[int, Label], int] = {}  # and the line of each
    for number, cells in file.body(columns.header):
        with file.line(number):
            name = columns.clip_name(cells)
            labels = vocabulary.several(columns.label_cell(cells))
            several = columns.header and not columns.timed and len(labels) <= 1
            if name in seen and not (several and seen[name][1]):
                raise TruthError(f"clip {name} is listed in line {seen[name][0]} already")
            seen[name] = (number, several)
            clip = clips.setdefault(name, len(clips))
            for label in labels:
                if several and (clip, label) in pairs:
                    raise TruthError(f"{label.name!r} of clip {name} is in line {pairs[clip, label]} already")
                pairs[clip, label] = number
    file.check()
    if not clips:
        raise TruthError(f"{file.path} lists no clips")
    index, numbers = _numbered(label for _, label in pairs)
    return WeakTruth(
        str(file.path), tuple(clips), index, np.array([clip for clip, _ in pairs], np.int32), numbers,
        dict(vocabulary.unknown),
    )  # fmt: skip


def read_strong(path: str | Path, unknown: Unknown = "error") -> StrongTruth:
    """Read strong labels: a file, or a folder with a file for each recording.

    Files, times in seconds:

    * audioset_eval_strong.tsv and its like: segment_id, start_time_seconds, end_time_seconds, label.
    * A table with a header, separated by tabs, commas or semicolons, with columns for clip, onset, offset and label
      under any of the usual names. A row with only a clip lists that clip as one without events.
    * A Raven selection table, with a column Annotation, Species, Label or Tag. `Begin File` or `Begin Path` names the
      recording, `File Offset (s)` the place in it where the table spans several files.
    * An Audacity label file, or any other without a header: onset, offset, label; or clip, onset, offset, label.

    A file without a column of clips belongs to the recording of its name: `dawn.txt`, `dawn.wav.csv` and
    `dawn.Table.1.selections.txt` to `dawn.wav`. In a folder all .txt, .tsv and .csv files are read, those in folders
    below it as well, and an empty one lists its recording as one without events.

    Args:
        path: Path or URL.
        unknown: What becomes of a label that satpipe does not know. A clip stays listed without its unknown events.

    Raises:
        TruthError: It cannot be read, or has lines that are not right: they are named.
        LabelError: It has labels that satpipe does not know; lines and nearest names are given.
    """
    location = locate(path)
    reader = _StrongReader(_Vocabulary(unknown))
    if location.is_dir():
        files = sorted(p for p in location.rglob("*") if p.suffix.lower() in _TRUTH_FILES and p.name[0] != ".")
        if not files:
            raise TruthError(f"{location} holds no .txt, .tsv or .csv files")
        named: dict[str, Path] = {}
        for each in files:
            clip = _clip_of_file(each.relative_to(location).as_posix())
            other = named.setdefault(_without_extension(clip), each)
            if other != each:
                raise TruthError(f"{other} and {each} are both of recording {clip}: keep one")
            reader.read(each, clip, may_be_empty=True)
    else:
        reader.read(location, _clip_of_file(location.name))
    if not reader.clips:
        raise TruthError(f"{location} lists no clips")
    return reader.truth(str(location))


def read_mapping(path: str | Path) -> dict[str, str]:
    """Read which recording is which clip: a table with the columns recording and clip.

    Raises:
        TruthError: It cannot be read, or has lines that are not right: they are named.
    """
    file = _File(locate(path))
    recording, clip = _first(file.header, ("recording",)), _first(file.header, ("clip",))
    if recording is None or clip is None:
        raise TruthError(f"{file.path} needs a header with the columns recording and clip")
    mapping: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, cells in file.body():
        with file.line(number):
            name, of = _cell(cells, recording), _cell(cells, clip)
            if not name or not of:
                raise TruthError("it takes a recording and a clip")
            if name in mapping:
                raise TruthError(f"recording {name} is in line {lines[name]} already")
            mapping[name], lines[name] = of, number
    file.check()
    if not mapping:
        raise TruthError(f"{file.path} names no recording")
    return mapping


def read_list(path: str | Path) -> tuple[str, ...]:
    """Read names of clips or recordings, each once.

    Either one in each line, or a table with a header that has a column of clips (clip, recording, filename, ...), or
    a segment list as AudioSet's.

    Raises:
        TruthError: It cannot be read, or names nothing.
    """
    file = _File(locate(path))
    first = file.rows[0][1] if file.rows else []
    column = _first(file.header, _CLIP)
    names = []
    if column is not None or (len(first) > 2 and _is_number(first[1]) and _is_number(first[2])):
        columns = _Columns(0, 2, 1, 2) if column is None else _Columns(column, column, header=True)
        for number, cells in file.body(columns.header):
            with file.line(number):
                names.append(columns.clip_name(cells))
        file.check()
    else:
        names = [_unquoted(line.strip()) for _, line in file.lines]
    names = [name for name in dict.fromkeys(names) if name]
    if not names:
        raise TruthError(f"{file.path} names no clip")
    return tuple(names)


def read_thresholds(path: str | Path, classes: Sequence[Label], default: float | None = None) -> Floats:
    """Read a threshold for each class: a table with the columns mid or label, and threshold.

    Args:
        path: Path or URL.
        classes: The class set; thresholds of other classes are passed over.
        default: Of classes that the table lacks; None: that is an error.

    Returns:
        Thresholds [K], from 0 to 1, in the order of the classes.

    Raises:
        TruthError: It cannot be read, has lines that are not right, or lacks classes.
        LabelError: It has labels that satpipe does not know.
    """
    file = _File(locate(path))
    label, threshold = _first(file.header, _LABEL), _first(file.header, ("threshold",))
    if label is None or threshold is None:
        raise TruthError(f"{file.path} needs a header with the columns mid or label, and threshold")
    vocabulary = _Vocabulary("error")
    found: dict[Label, float] = {}
    lines: dict[Label, int] = {}
    for number, cells in file.body():
        with file.line(number):
            key = vocabulary.one(_cell(cells, label))
            value = _number(_cell(cells, threshold), "threshold")
            if not 0 <= value <= 1:
                raise TruthError(f"threshold {value:g} is not from 0 to 1")
            if key in found:
                raise TruthError(f"{key.name!r} is in line {lines[key]} already")
            found[key], lines[key] = value, number
    file.check()
    lacking = [each.name for each in classes if each not in found]
    if lacking and default is None:
        raise TruthError(f"{file.path} has no threshold for {_some(lacking, 'class', 'classes')}")
    return np.array([found.get(each, default) for each in classes], np.float64)


def class_set(name: str | Path) -> tuple[Label, ...]:
    """Return the classes that figures are counted over.

    Args:
        name: "527", the model's outputs in their order; of the strong labels "416", those in the evaluation set,
            "407", those in the training and the evaluation set, "381", those in the evaluation set and the 527 (the
            paper's). Or a file: a mid or a name in each line, or a table with a column mid or label.

    Raises:
        ConfigError: There is neither such a set nor such a file.
        TruthError: The file cannot be read, or names a class twice or none.
        LabelError: It names a class that satpipe does not know.
    """
    match str(name):
        case "527":
            return weak_labels()
        case "416":
            return strong_labels("eval")
        case "407":
            train = set(strong_labels("train"))
            return tuple(label for label in strong_labels("eval") if label in train)
        case "381":
            return strong_labels("shared")
    path = locate(name)
    if not path.is_file():
        raise ConfigError(f"there is no class set '{name}' ({', '.join(CLASS_SETS)}), and no file of that name")
    file = _File(path)
    vocabulary = _Vocabulary("error")
    lines: dict[Label, int] = {}
    for number, text in _class_cells(file):
        with file.line(number):
            label = vocabulary.one(text)
            if label in lines:
                raise TruthError(f"{label.name!r} is in line {lines[label]} already")
            lines[label] = number
    file.check()
    if not lines:
        raise TruthError(f"{path} names no class")
    return tuple(lines)


def select(truth: StrongTruth, classes: Sequence[Label]) -> Events:
    """Return the events of a class set, as they are; `label` is a position in it."""
    row, label = _of_classes(truth.events.label, truth.labels, classes, closed=False)
    return replace(truth.events.take(row), label=label)


def closed(truth: StrongTruth, classes: Sequence[Label]) -> Events:
    """Return the events closed over the ontology: an event of a class is one of all classes above it as well.

    Events outside the class set count for classes above them that are in it. Of one class, events that overlap or
    touch are made one. The ontology is that of Gemmeke et al. 2017; it lacks 31 of the strong labels' classes.
    """
    row, label = _of_classes(truth.events.label, truth.labels, classes, closed=True)
    return replace(truth.events.take(row), label=label).merged()


def positives(truth: WeakTruth, classes: Sequence[Label] | None = None, *, closed: bool = False) -> npt.NDArray[Any]:
    """Return which classes occur in which clips.

    Args:
        truth: Weak labels.
        classes: The class set; by default the model's outputs in their order.
        closed: A clip with a class has all classes above it in the ontology as well.

    Returns:
        Booleans [clips, K].
    """
    classes = weak_labels() if classes is None else classes
    row, label = _of_classes(truth.label, truth.labels, classes, closed=closed)
    found = np.zeros((len(truth.clips), len(classes)), bool)
    found[truth.clip[row], label] = True
    return found


def within(truth: StrongTruth, durations_s: npt.ArrayLike) -> Within:
    """Cut events to the length of the recordings: what lies beyond the end cannot be found.

    Args:
        truth: Events of clips that were found.
        durations_s: Of the recording of each clip, [clips]; NaN where it is not known: nothing is cut there.
    """
    events = truth.events
    end_s = np.asarray(durations_s, np.float64)[events.clip]
    outside = (events.onset_s >= end_s) & (events.offset_s > end_s)
    over = ~outside & (events.offset_s > end_s + BEYOND_S)
    example = ""
    for row in [*np.flatnonzero(outside)[:1], *np.flatnonzero(over)[:1]][:1]:
        what = f"{truth.labels[events.label[row]].name!r} from {events.onset_s[row]:g} s to {events.offset_s[row]:g} s"
        example = f"{what} in {truth.clips[events.clip[row]]}, which ends at {end_s[row]:g} s"
    kept = replace(events, offset_s=np.fmin(events.offset_s, end_s)).take(~outside)
    cut = replace(truth, events=kept, duplicates=_duplicates(kept))
    return Within(cut, int(over.sum()), int(outside.sum()), example)


def match(clips: Sequence[str], recordings: Sequence[str], mapping: Mapping[str, str] | None = None) -> Match:
    """Find the recording of each clip.

    By name, where the first of these that holds decides: the same path; the same but for the extension of audio; one
    path is the end of the other (`site1/dawn` of `data/site1/dawn.wav`); the same name in other folders, if no other
    clip or recording has it.

    Else by AudioSet's naming habits: YTID, a YouTube id of 11 characters, or YYTID, followed by nothing, by
    _START_END in seconds (30.000_40.000, 30_40) or milliseconds (30000_40000), or by _START in milliseconds or whole
    seconds. Clip and recording must start at the same millisecond; where one of the two gives no start, the id decides
    if only one comes into question.

    Args:
        clips: Names as in the list of true labels, each once.
        recordings: Names as in the recordings table, each once.
        mapping: Recording to clip, for those that names do not tell; it goes before them.

    Raises:
        TruthError: Several recordings come into question for a clip, or several clips for a recording: they are
            named. Or a mapping has nothing to do with either.
    """
    matcher = _Matcher(clips, recordings)
    mapped = {place: mapping[name] for place, name in enumerate(recordings) if name in mapping} if mapping else {}
    matcher.find(mapped, ("mapping", "mapping", "mapping"))
    if mapping and not matcher.found:
        raise TruthError("the mapping names no recording in the tables together with a clip that is listed")
    others = {place: name for place, name in enumerate(recordings) if place not in mapped}
    matcher.find(others, ("name", "YouTube id and start", "YouTube id"))
    return matcher.result()


class _File:
    """A text file of lines with cells, and what was wrong with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wrong: list[tuple[int, SatpipeError]] = []
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise TruthError(f"{path} cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise TruthError(f"{path} is not text in UTF-8: {error}") from error
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.lines = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
        first = self.lines[0][1] if self.lines else ""
        self.delimiter = "\t" if "\t" in first else ";" if ";" in first.partition(",")[0] else ","
        self.rows: list[tuple[int, list[str]]] = []
        for number, line in self.lines:
            with self.line(number):
                self.rows.append((number, self._cells(line)))

    @property
    def header(self) -> list[str]:
        """The cells of the first row, as names of columns."""
        return [_plain(cell) for cell in self.rows[0][1]] if self.rows else []

    def body(self, header: bool = True) -> Iterator[tuple[int, list[str]]]:
        """Yield line numbers and cells; below a header, rows with more cells than that are wrong."""
        width = len(self.header)
        for number, cells in self.rows[header:]:
            if header and any(cells[width:]):
                wrong = TruthError(f"{len(cells)} cells, where the header has {width}: commas in a cell take quotes")
                self._wrong.append((number, wrong))
            else:
                yield number, cells

    def _cells(self, line: str) -> list[str]:
        if self.delimiter == "\t":  # programs that write tabs rarely quote, and names may hold a quote
            cells = [cell.strip() for cell in line.split("\t")]
            return [_unquoted(cell) for cell in cells] if '"' in line else cells
        try:
            cells = next(csv.reader([line], delimiter=self.delimiter, skipinitialspace=True, strict=True))
        except csv.Error:
            raise TruthError("a quote that does not end, or ends within a cell") from None
        return [cell.strip() for cell in cells]

    def line(self, number: int) -> "_Line":
        """Take an error raised within as one of this line."""
        return _Line(self._wrong, number)

    def check(self) -> None:
        """Raise an error if lines were wrong."""
        if not self._wrong:
            return
        self._wrong.sort(key=lambda wrong: wrong[0])
        count = len(self._wrong)
        shown = "".join(f"\n  line {number}: {error}" for number, error in self._wrong[:SHOWN])
        more = f"\n  and {count - SHOWN} more" if count > SHOWN else ""
        kind = LabelError if all(isinstance(error, LabelError) for _, error in self._wrong) else TruthError
        raise kind(f"{self.path} has {count} bad line{'s' if count > 1 else ''}:{shown}{more}")


class _Line:
    """Puts an error with its line on a list."""

    def __init__(self, wrong: list[tuple[int, SatpipeError]], number: int) -> None:
        self._wrong = wrong
        self._number = number

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, error: Any, _traceback: Any) -> bool:
        if isinstance(error, (TruthError, LabelError)):
            self._wrong.append((self._number, error))
            return True
        return False


class _Vocabulary:
    """Looks labels up, each text once."""

    def __init__(self, unknown: Unknown) -> None:
        self._skip = unknown == "skip"
        self._known: dict[str, Label | str] = {}  # or why there is none
        self.unknown: Counter[str] = Counter()

    def one(self, text: str) -> Label:
        """Return the class of a mid or a name.

        Raises:
            LabelError: There is none.
        """
        if text not in self._known:
            self._known[text] = self._find(text)
        found = self._known[text]
        if isinstance(found, str):
            raise LabelError(found)
        return found

    def maybe(self, text: str) -> Label | None:
        """Return the class of a mid or a name; None, and counted, where there is none and that is no error.

        Raises:
            LabelError: There is none.
        """
        try:
            return self.one(text)
        except LabelError:
            if not self._skip or not text:
                raise
            self.unknown[text] += 1
            return None

    def several(self, text: str) -> list[Label]:
        """Return the classes of a cell of weak labels, each once.

        Raises:
            LabelError: One of them is unknown.
        """
        if text in _NO_VALUE:
            return []
        parts = re.split(r"[;|]", text) if ";" in text or "|" in text else [text]
        parts = [mid for part in parts for mid in (part.split(",") if part.lstrip().startswith("/") else [part])]
        labels = (self.maybe(part.strip()) for part in parts if part.strip())
        return list(dict.fromkeys(label for label in labels if label))

    @staticmethod
    def _find(text: str) -> Label | str:
        if not text:
            return "there is no label"
        if text.isdecimal():
            return f"{text} is a number: a label is a mid or a name"
        if text.startswith("/") and "," in text:
            return f"{text} is several labels, where one is expected"
        try:
            return find(text)
        except LabelError as error:
            return str(error)


@dataclass(frozen=True)
class _Columns:
    """Which cell is what.

    Attributes:
        clip: The clip's name.
        label: The label or labels.
        onset: Start of the event or the clip.
        offset: End of it.
        header: Whether the file has one.
        rest: Labels may go on in the cells that follow: they hold commas that nobody quoted.
        in_file: Raven's start of the event in the file named.
        selection: Raven's number and view of the selection.
        sequence: Raven counts the times through several files.
    """

    clip: int | None
    label: int
    onset: int | None = None
    offset: int | None = None
    header: bool = False
    rest: bool = False
    in_file: int | None = None
    selection: tuple[int, int] | None = None
    sequence: bool = False

    @property
    def timed(self) -> bool:
        """Whether there are times."""
        return self.onset is not None and self.offset is not None

    def label_cell(self, cells: list[str]) -> str:
        """Return the label or labels."""
        return ", ".join(cells[self.label :]) if self.rest else _cell(cells, self.label)

    def timeless(self, cells: list[str]) -> bool:
        """Whether a row has neither onset nor offset."""
        return _cell(cells, self.onset) in _NO_VALUE and _cell(cells, self.offset) in _NO_VALUE

    def times(self, cells: list[str]) -> tuple[float, float]:
        """Return onset and offset in seconds.

        Raises:
            TruthError: They are not numbers, are negative, or the wrong way round.
        """
        onset_s = _number(_cell(cells, self.onset), "onset")
        offset_s = _number(_cell(cells, self.offset), "offset")
        if onset_s < 0 or offset_s < 0:
            raise TruthError(f"a negative time, {min(onset_s, offset_s):g} s")
        if offset_s < onset_s:
            raise TruthError(f"it ends at {offset_s:g} s, before it starts at {onset_s:g} s")
        if self.in_file is not None and self.clip is not None:
            start_s = _number(_cell(cells, self.in_file), "place in the file")
            if start_s < 0:
                raise TruthError(f"a negative time, {start_s:g} s")
            return start_s, start_s + (offset_s - onset_s)
        return onset_s, offset_s

    def clip_name(self, cells: list[str]) -> str:
        """Return the name of a clip with weak labels; of one cut from a video, with start and end.

        Raises:
            TruthError: There is none, or the times are not those of a clip.
        """
        if not self.header and len(cells) <= self.label:
            raise TruthError(f"{len(cells)} cells, where 4 are expected: YTID, start, end, labels")
        name = _cell(cells, self.clip)
        if not name:
            raise TruthError("there is no clip")
        if not self.timed:
            return name
        start_s, end_s = self.times(cells)
        if start_s == end_s:
            raise TruthError(f"clip {name} starts and ends at {start_s:g} s")
        segment = _SEGMENT.fullmatch(_path(name).stem)
        if segment and not segment[2]:
            return f"{_path(name).stem}_{start_s:.3f}_{end_s:.3f}"
        if start_s or segment:
            raise TruthError(f"{name} from {start_s:g} s to {end_s:g} s: weak labels are of whole clips")
        return name


def _weak_columns(file: _File) -> _Columns:
    """Tell the columns of weak labels."""
    names = file.header
    if not names or any(map(_is_number, names)):
        return _Columns(0, 3, 1, 2, rest=True)
    clip, label = _first(names, _CLIP), _first(names, _LABEL)
    if clip is None or label is None:
        what = "clips" if clip is None else "labels"
        raise TruthError(
            f"{file.path} has no column of {what} among {', '.join(names)}. Weak labels are AudioSet's lists (YTID, "
            "start, end, labels), or tables with a header such as recording, label"
        )
    return _Columns(clip, label, _first(names, _ONSET), _first(names, _OFFSET), header=True)


def _strong_columns(file: _File) -> _Columns:
    """Tell the columns of strong labels."""
    names = file.header
    if not any(map(_is_number, names)):
        clip, label = _first(names, _CLIP), _first(names, _LABEL)
        onset, offset = _first(names, _ONSET), _first(names, _OFFSET)
        lacking = [n for n, c in (("onsets", onset), ("offsets", offset), ("labels", label)) if c is None]
        if not lacking and label is not None:
            raven = clip is not None and names[clip] in ("begin path", "begin file")
            in_file = _first(names, ("file offset",)) if raven else None
            number, view = _first(names, ("selection",)), _first(names, ("view",))
            selection = None if number is None or view is None else (number, view)
            return _Columns(
                clip, label, onset, offset, header=True, in_file=in_file, selection=selection,
                sequence=raven and in_file is None,
            )  # fmt: skip
        if len(file.rows) == 1 or len(lacking) < 3:
            there = ", ".join(names)
            raise TruthError(f"{file.path} has no column of {' nor of '.join(lacking)}; its columns are {there}")
    for _, row in file.rows:
        numbers = [_is_number(cell) for cell in row]
        if len(row) >= 4 and numbers[1] and numbers[2]:
            return _Columns(0, 3, 1, 2, rest=file.delimiter == ",")
        if len(row) >= 3 and numbers[0] and numbers[1]:
            return _Columns(None, 2, 0, 1, rest=file.delimiter == ",")
    raise TruthError(
        f"{file.path} holds no strong labels in a format that satpipe reads: a table with columns for onset, offset, "
        "label (and clip), a Raven selection table with annotations, or Audacity labels (onset, offset, label)"
    )


class _StrongReader:
    """Collects the events of files."""

    def __init__(self, vocabulary: _Vocabulary) -> None:
        self.clips: dict[str, int] = {}
        self._vocabulary = vocabulary
        self._views = 0
        self._events: list[tuple[int, Label, float, float]] = []

    def read(self, path: Path, clip: str, *, may_be_empty: bool = False) -> None:
        """Read a file; `clip` is the recording it belongs to if it does not say otherwise."""
        file = _File(path)
        if not file.rows:
            file.check()
            if not may_be_empty:
                raise TruthError(f"{path} is empty")
            self._clip(clip)
            return
        columns = _strong_columns(file)
        if columns.clip is None or (may_be_empty and len(file.rows) == 1 and columns.header):
            self._clip(clip)
        views: dict[Any, str] = {}
        seen: set[str] = set()
        for number, cells in file.body(columns.header):
            if cells[0].startswith("\\"):  # Audacity's frequency range of the label above
                continue
            with file.line(number):
                self._row(columns, cells, clip, views, seen)
        file.check()

    def _row(self, columns: _Columns, cells: list[str], clip: str, views: dict[Any, str], seen: set[str]) -> None:
        if columns.clip is not None:
            clip = _cell(cells, columns.clip)
            if not clip:
                raise TruthError("there is no clip")
            seen.add(clip)
            if columns.sequence and len(seen) > 1:
                raise TruthError("Raven's times run through several files: have it write the column File Offset (s)")
        text = columns.label_cell(cells)
        if columns.clip is not None and text in _NO_VALUE and columns.timeless(cells):
            self._clip(clip)
            return
        onset_s, offset_s = columns.times(cells)
        if columns.selection:
            selection, view = (_cell(cells, place) for place in columns.selection)
            if views.setdefault((selection, clip, onset_s, offset_s, text), view) != view:
                self._views += 1
                return
        label = self._vocabulary.maybe(text)
        place = self._clip(clip)
        if label:
            self._events.append((place, label, onset_s, offset_s))

    def _clip(self, name: str) -> int:
        return self.clips.setdefault(name, len(self.clips))

    def truth(self, source: str) -> StrongTruth:
        """Return all that was read."""
        labels, label = _numbered(event[1] for event in self._events)
        clip, _, onset_s, offset_s = zip(*self._events, strict=True) if self._events else ([], [], [], [])
        events = Events.of(clip, label, onset_s, offset_s)
        unknown = dict(self._vocabulary.unknown)
        return StrongTruth(source, tuple(self.clips), labels, events, _duplicates(events), self._views, unknown)


class _Matcher:
    """Clips and recordings by position, and which belong together."""

    def __init__(self, clips: Sequence[str], recordings: Sequence[str]) -> None:
        self._clips, self._recordings = clips, recordings
        self._paths = [_path(clip) for clip in clips]
        self.found: dict[int, tuple[int, str]] = {}  # clip -> recording, and how it was found
        self._taken: set[int] = set()
        self._wrong: list[str] = []

    def find(self, names: Mapping[int, str], how: tuple[str, str, str]) -> None:
        """Find the clips of recordings that go by these names.

        Args:
            names: Of each recording, by position.
            how: What to call matches by name, by YouTube id and start, by YouTube id.

        Raises:
            TruthError: Several come into question.
        """
        paths = {place: _path(name) for place, name in names.items()}
        self._by_name(paths, how[0])
        self._by_segment({place: path.stem for place, path in paths.items() if place not in self._taken}, how[1:])
        if self._wrong:
            count = len(self._wrong)
            shown = "".join(f"\n  {each}" for each in self._wrong[:SHOWN])
            more = f"\n  and {count - SHOWN} more" if count > SHOWN else ""
            raise TruthError(
                f"{count} name{'s do' if count > 1 else ' does'} not tell which recording is which clip:{shown}{more}\n"
                "A mapping file with the columns recording and clip decides"
            )

    def _by_name(self, paths: Mapping[int, "_Path"], how: str) -> None:
        exact: dict[_Path, list[int]] = defaultdict(list)
        whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
        ending: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, path in paths.items():
            exact[path].append(place)
            whole[path.parts].append(place)
            for end in _ends(path.parts):
                ending[end].append(place)
        listed = Counter(path.stem for path in self._paths)
        claims: dict[int, list[tuple[int, int]]] = defaultdict(list)  # recording -> (how far off, clip)
        for clip, path in enumerate(self._paths):
            if clip in self.found:
                continue
            parts = path.parts
            ways = (exact.get(path), whole.get(parts), ending.get(parts), *(whole.get(end) for end in _ends(parts)))
            distance, near = next(((n, places) for n, places in enumerate(ways) if places), (len(ways), []))
            if not near:
                elsewhere = ending.get((path.stem,), [])
                near = elsewhere if len(elsewhere) == listed[path.stem] == 1 else []
            if len(near) > 1:
                self._several_recordings(self._clips[clip], near)
            elif near:
                claims[near[0]].append((min(distance, 2), clip))
        for recording, claimed in claims.items():
            nearest = min(claimed)[0]
            self._take(recording, [clip for distance, clip in claimed if distance == nearest], how)

    def _by_segment(self, stems: Mapping[int, str], how: tuple[str, ...]) -> None:
        at: dict[tuple[str, int], list[int]] = defaultdict(list)
        of: dict[str, list[int]] = defaultdict(list)
        whole: dict[str, list[int]] = defaultdict(list)
        for place, stem in stems.items():
            if not (segment := _segment(stem)):
                continue
            ytid, starts_ms = segment
            of[ytid].append(place)
            for start_ms in starts_ms:
                at[ytid, start_ms].append(place)
            if not starts_ms:
                whole[ytid].append(place)
        if not of:
            return
        claims: dict[int, list[tuple[int, int]]] = defaultdict(list)  # recording -> (place in `how`, clip)
        for clip, path in enumerate(self._paths):
            if clip in self.found or not (segment := _segment(path.stem)) or segment[0] not in of:
                continue
            ytid, starts_ms = segment
            started = [place for start_ms in starts_ms for place in at.get((ytid, start_ms), ())]
            near = list(dict.fromkeys(started)) or whole.get(ytid, []) or ([] if starts_ms else of[ytid])
            if len(near) > 1:
                self._several_recordings(self._clips[clip], near)
            elif near:
                claims[near[0]].append((0 if started else 1, clip))
        for recording, claimed in claims.items():
            surest = min(claimed)[0]
            self._take(recording, [clip for way, clip in claimed if way == surest], how[surest])

    def _take(self, recording: int, clips: list[int], how: str) -> None:
        if len(clips) > 1:
            names = _some([self._clips[clip] for clip in clips], "clip", "clips")
            self._wrong.append(f"recording {self._recordings[recording]} could be any of {names}")
            return
        self.found[clips[0]] = (recording, how)
        self._taken.add(recording)

    def _several_recordings(self, clip: str, recordings: list[int]) -> None:
        names = _some([self._recordings[place] for place in recordings], "recording", "recordings")
        self._wrong.append(f"clip {clip} could be any of {names}")

    def result(self) -> Match:
        """Return what was found."""
        clips = sorted(self.found)
        return Match(
            np.array(clips, np.int32),
            np.array([self.found[clip][0] for clip in clips], np.int32),
            tuple(name for clip, name in enumerate(self._clips) if clip not in self.found),
            tuple(name for place, name in enumerate(self._recordings) if place not in self._taken),
            dict(Counter(how for _, how in self.found.values())),
        )


class _Path(NamedTuple):
    """Name of a clip or a recording: its folders and stem, and the last of them with its extension."""

    parts: tuple[str, ...]
    last: str

    @property
    def stem(self) -> str:
        """Without folders and extension."""
        return self.parts[-1]


def _path(name: str) -> _Path:
    text = name if name.isascii() else normalize("NFC", name)  # file systems of Apple's take accents apart
    *folders, last = text.replace("\\", "/").split("/")
    return _Path((*(folder for folder in folders if folder not in ("", ".")), _without_extension(last)), last)


def _ends(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield shorter and shorter ends of a path."""
    return (parts[cut:] for cut in range(1, len(parts)))


def _without_extension(name: str) -> str:
    """Drop an extension of audio; a dot alone makes none: YTID_30.000_40.000."""
    name = _CHANNEL.sub("", name)
    stem, dot, extension = name.rpartition(".")
    return stem if stem and dot + extension.lower() in EXTENSIONS else name


def _segment(stem: str) -> tuple[str, tuple[int, ...]] | None:
    """YouTube id, and the milliseconds at which the clip may start, none if the name does not say; or None."""
    found = _SEGMENT.fullmatch(stem)
    if not found:
        return None
    ytid, start, end = found.groups()
    if start is None:
        return ytid, ()
    if "." in start or (end is not None and "." in end):
        return ytid, (round(float(start) * 1000),)
    if end is None:
        return ytid, tuple(dict.fromkeys((int(start), int(start) * 1000)))
    return ytid, (int(start) * (1 if int(end) - int(start) >= _SHORTEST_MS else 1000),)


def _clip_of_file(path: str) -> str:
    """Recording that a file of labels is of, by its name."""
    return _RAVEN_FILE.sub("", path.rpartition(".")[0] or path)


def _class_cells(file: _File) -> Iterable[tuple[int, str]]:
    """Line number and mid or name of each class in a file."""
    column = _first(file.header, _LABEL)
    if column is not None:
        return [(number, _cell(cells, column)) for number, cells in file.body()]
    # Without a header: a mid, maybe with a name behind it, or a name, maybe with commas.
    return [
        (number, re.split(r"[\t,;]", line)[0].strip() if line.startswith("/") else _unquoted(line.strip()))
        for number, line in file.lines
    ]


def _of_classes(
    label: Ints, labels: Sequence[Label], classes: Sequence[Label], *, closed: bool
) -> tuple[npt.NDArray[np.intp], Ints]:
    """Rows whose label is in a class set, and its position there; if closed, again for each class above it."""
    at = {each: place for place, each in enumerate(classes)}
    above: Callable[[Label], tuple[Label, ...]] = (lambda each: ancestors(each.mid)) if closed else (lambda _: ())
    targets = [[at[each] for each in (own, *above(own)) if each in at] for own in labels]
    count = np.array([len(each) for each in targets], np.int64)
    flat = np.array([place for each in targets for place in each], np.int32)
    first = np.cumsum(count) - count
    times = count[label]
    row = np.repeat(np.arange(len(label)), times)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    return row, flat[first[label[row]] + nth]


def _numbered(labels: Iterable[Label]) -> tuple[tuple[Label, ...], Ints]:
    """Distinct labels by mid, and the position of each label among them."""
    given = list(labels)
    distinct = sorted(set(given), key=lambda label: label.mid)
    at = {label: place for place, label in enumerate(distinct)}
    return tuple(distinct), np.array([at[label] for label in given], np.int32)


def _renumber(clip: Ints, clips: npt.NDArray[np.integer], count: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Which rows are of these clips, and the new number of each row's clip."""
    new = np.full(count, -1, np.int32)
    new[clips] = np.arange(len(clips), dtype=np.int32)
    numbers = new[clip]
    return numbers >= 0, numbers


def _duplicates(events: Events) -> int:
    ordered = events.sorted()
    columns = (ordered.clip, ordered.label, ordered.onset_s, ordered.offset_s)
    same = [column[1:] == column[:-1] for column in columns]
    return int(np.logical_and.reduce(same).sum())


def _plain(name: str) -> str:
    """Name of a column without case, underscores and unit of seconds."""
    return _UNIT.sub("", re.sub(r"[\s_]+", " ", name.strip().casefold()))


def _first(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _cell(cells: list[str], place: int | None) -> str:
    return cells[place] if place is not None and place < len(cells) else ""


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text not in _NO_VALUE


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not isfinite(number) or "_" in text:
        raise TruthError(f"{what} {text!r} is not a number" if text else f"there is no {what}")
    return number


def _some(names: list[str], one: str, many: str) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {one if len(names) == 1 else many}: {', '.join(names[:SHOWN])}{more}"
