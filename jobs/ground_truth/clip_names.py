"""What the names of clips and recordings tell."""

import re
from collections.abc import Iterator
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Ints
from satpipe.pipeline.recordings.find import EXTENSIONS

_RAVEN_FILE = re.compile(r"(\.Table\.\d+)?\.selections?$", re.IGNORECASE)
_CHANNEL = re.compile(r"#ch\d+$")  # how `tag --channels split` names the channels of a recording
_SEGMENT = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?", re.ASCII)
_SHORTEST_MS = 1000  # two whole numbers in a name that lie closer are seconds


class Name(NamedTuple):
    """Name of a clip or a recording: its folders and stem, and the last of them with its extension."""

    parts: tuple[str, ...]
    last: str

    @property
    def stem(self) -> str:
        """Without folders and extension."""
        return self.parts[-1]

    def ends(self) -> Iterator[tuple[str, ...]]:
        """Yield shorter and shorter ends of it, itself not among them."""
        return (self.parts[cut:] for cut in range(1, len(self.parts)))


class Segment(NamedTuple):
    """What AudioSet's clips are: a YouTube id, and the milliseconds at which it may start, none if unknown."""

    ytid: str
    starts_ms: tuple[int, ...]


def parse_name(text: str) -> Name:
    """Take a path apart."""
    text = text if text.isascii() else normalize("NFC", text)  # file systems of Apple's take accents apart
    *folders, last = text.replace("\\", "/").split("/")
    return Name((*(folder for folder in folders if folder not in ("", ".")), without_extension(last)), last)


def without_extension(name: str) -> str:
    """Drop an extension of audio; a dot alone makes none: YTID_30.000_40.000."""
    name = _CHANNEL.sub("", name)
    stem, dot, extension = name.rpartition(".")
    return stem if stem and dot + extension.lower() in EXTENSIONS else name


def parse_segment(stem: str) -> Segment | None:
    """Return what a name of AudioSet's says, None for other names; see `match` for its forms."""
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
    """Return the recording that a file of labels is of, by its name."""
    return _RAVEN_FILE.sub("", path.rpartition(".")[0] or path)


def renumber(clip: Ints, clips: npt.NDArray[np.integer], count: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Number rows by the clips that are taken, by position, of `count` of them.

    Returns:
        Which rows are of clips taken, and of each row its clip's new number, [n].
    """
    new = np.full(count, -1, np.int32)
    new[clips] = np.arange(len(clips), dtype=np.int32)
    numbers = new[clip]
    return numbers >= 0, numbers
