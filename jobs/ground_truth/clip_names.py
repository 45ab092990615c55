"""Names of clips and recordings."""

import re
from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Ints
from satpipe.pipeline.recordings.find import EXTENSIONS

_RAVEN_FILE = re.compile(r"(\.Table\.\d+)?\.selections?$", re.IGNORECASE)
_CHANNEL = re.compile(r"#ch\d+$")  # suffix that `tag --channels split` adds for each channel
_SEGMENT = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?", re.ASCII)
_SHORTEST_MS = 1000  # start and end in a name are seconds if they differ by less


class Name(NamedTuple):
    """Name of a clip or a recording: its folders and stem, and the file name with its extension."""

    parts: tuple[str, ...]
    last: str

    @property
    def stem(self) -> str:
        """The file name without extension."""
        return self.parts[-1]

    def ends(self) -> Iterator[tuple[str, ...]]:
        """Yield the ends of the path, from the longest to the file name, without the whole path."""
        return (self.parts[cut:] for cut in range(1, len(self.parts)))


class Segment(NamedTuple):
    """A clip of AudioSet: a YouTube id, and the possible starts in milliseconds, none if unknown."""

    ytid: str
    starts_ms: tuple[int, ...]


def parse_name(text: str) -> Name:
    """Split a path."""
    text = text if text.isascii() else normalize("NFC", text)  # Apple's file systems decompose accents
    *folders, last = text.replace("\\", "/").split("/")
    return Name((*(folder for folder in folders if folder not in ("", ".")), without_extension(last)), last)


def without_extension(name: str) -> str:
    """Remove an audio extension; `.000` of YTID_30.000_40.000 is not one."""
    name = _CHANNEL.sub("", name)
    stem, dot, extension = name.rpartition(".")
    return stem if stem and dot + extension.lower() in EXTENSIONS else name


def parse_segment(stem: str) -> Segment | None:
    """Parse a name by AudioSet's conventions, see `match`; None for other names."""
    found = _SEGMENT.fullmatch(stem)
    if not found:
        return None
    ytid, start, end = found.groups()
    if start is None:
        return Segment(ytid, ())
    if "." in start or (end is not None and "." in end):
        return Segment(ytid, (round(float(start) * 1000),))
    if end is None:
        return Segment(ytid, tuple(dict.fromkeys((int(start), int(start) * 1000))))
    return Segment(ytid, (int(start) * (1 if int(end) - int(start) >= _SHORTEST_MS else 1000),))


def clip_of_file(path: str) -> str:
    """Return the name of the recording that a label file belongs to."""
    return _RAVEN_FILE.sub("", path.rpartition(".")[0] or path)


def renumber(clip: Ints, clips: npt.NDArray[np.integer], count: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Return which rows belong to the selected clips, and the new clip number of each row, [n].

    Args:
        clip: Clip of each row, [n].
        clips: Positions of the selected clips, in their new order.
        count: Number of all clips.
    """
    new = np.full(count, -1, np.int32)
    new[clips] = np.arange(len(clips), dtype=np.int32)
    numbers = new[clip]
    return numbers >= 0, numbers
