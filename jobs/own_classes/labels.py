"""Read what a user labelled: a folder for each class, or labelled stretches of recordings."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from satpipe.jobs.ground_truth import read_strong
from satpipe.jobs.ground_truth.dialects import SUFFIXES
from satpipe.jobs.ground_truth.vocabulary import OpenVocabulary
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import ConfigError, TruthError
from satpipe.sat.own_classes import PREFIX
from satpipe.sat.printable import printable

BACKGROUND = "background"
"""Label of examples of none of the classes."""
SAME_S = 1e-6  # times that differ by less are the same
_TIMES = re.compile(r"[ _-]\d+\.\d+s?[ _-]\d+\.\d+s?$")  # of a clip that was cut from a recording


@dataclass(frozen=True)
class Example:
    """A labelled stretch of a recording, or a whole recording: an example of some classes, or of none."""

    recording: str
    """Name as in the labels; path relative to the folder of classes."""
    origin: str
    """What it was cut from: examples of one origin are never on both sides of the cross-validation."""
    start_s: float = 0.0
    end_s: float | None = None
    """None: the end of the recording."""
    present: frozenset[str] = frozenset()
    """Classes that occur."""
    absent: frozenset[str] | None = None
    """Classes that do not occur; None: all others."""


@dataclass(frozen=True)
class Labelled:
    """The labels of a user.

    Attributes:
        classes: Names, sorted.
        examples: In the order of the labels.
        folder: Where the audio lies.
    """

    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    folder: Path


def read_labels(path: str | Path) -> Labelled:
    """Read a folder of classes, or labelled stretches in any dialect of `satpipe.jobs.ground_truth.read_strong`.

    In a folder of classes, each sub-folder holds the recordings of a class, and `background` those of none. A folder
    that holds label files is one of labelled stretches.

    Raises:
        ConfigError: The path does not exist, or a class has no recordings.
        TruthError: A file cannot be read, or the classes are too few, or have names that cannot be told apart.
    """
    place = locate(path)
    if not place.exists():
        raise ConfigError(f"{path} does not exist: give a folder with a sub-folder for each class, or a file of labels")
    by_class = place.is_dir() and not any(each.suffix.lower() in SUFFIXES for each in place.iterdir())
    examples = _of_folders(place) if by_class else _of_file(place)
    classes = sorted({label for each in examples for label in each.present})
    _check(path, classes, examples)
    return Labelled(tuple(classes), tuple(examples), place if place.is_dir() else place.parent)


def _of_folders(folder: Path) -> list[Example]:
    """Return an example for each recording in the sub-folders."""
    examples, empty = [], []
    for place in sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")):
        search = Search((str(place),))
        found = [f"{place.name}/{source.recording}" for source in search]
        if not found:
            others = ", ".join(search.not_read)
            empty.append(f"{place.name}{f' (it has {others} files, which are not read)' if others else ''}")
        present = frozenset() if place.name.casefold() == BACKGROUND else frozenset([place.name])
        examples += [Example(name, f"{place.name}/{origin_of(name)}", present=present) for name in found]
    if empty:
        raise ConfigError(f"{folder} has classes without recordings: {', '.join(empty)}")
    if not examples:
        raise ConfigError(
            f"{folder} is neither a folder with a sub-folder of recordings for each class, nor one with label files "
            f"({', '.join(SUFFIXES)})"
        )
    return examples


def origin_of(recording: str) -> str:
    """Return what a clip was cut from: its name without folders, extension, and a start and an end after it."""
    stem = recording.rpartition("/")[2].rpartition(".")[0]
    return _TIMES.sub("", stem) or stem


def _of_file(path: Path) -> list[Example]:
    """Return an example for each recording, start and end that is labelled."""
    labels = read_strong(path, vocabulary=OpenVocabulary(PREFIX))
    names = [label.name for label in labels.labels]
    yes, no = (_by_place(events, names) for events in (labels.events, labels.denied))
    examples = []
    for place in sorted(yes.keys() | no.keys()):
        clip, start_s, end_s = place
        name = labels.clips[clip]
        present = frozenset(yes.get(place, ())) - {BACKGROUND}
        # What someone denied is known to be absent there, and nothing else: another class may occur.
        absent = None if place in yes else frozenset(no[place])
        examples.append(Example(name, name, start_s, end_s, present, absent))
    return examples


def _by_place(events: Events, names: list[str]) -> dict[tuple[int, float, float], set[str]]:
    found: dict[tuple[int, float, float], set[str]] = defaultdict(set)
    for clip, label, onset_s, offset_s in zip(
        events.clip.tolist(), events.label.tolist(), events.onset_s.tolist(), events.offset_s.tolist(), strict=True
    ):
        name = names[label]
        found[clip, onset_s, offset_s].add(BACKGROUND if name.casefold() == BACKGROUND else name)
    return found


def _check(path: str | Path, classes: list[str], examples: Iterable[Example]) -> None:
    by_plain: dict[str, str] = {}
    for name in classes:
        other = by_plain.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise TruthError(f"{path} has two classes whose names differ in case or spaces only: {other} and {name}")
        if printable(name) != name or name.strip() != name:
            raise TruthError(f"{path} has a class whose name has spaces at an end or cannot be printed: {name!r}")
    if not classes:
        raise TruthError(f"{path} has no example of a class, only of other sounds")
    if all(each.present == frozenset(classes) for each in examples):
        raise TruthError(
            f"{path} has examples of {classes[0]} only, and nothing to tell it from: add another class, or examples "
            f"of other sounds as {BACKGROUND}"
        )


def check_origins(path: str | Path, classes: Iterable[str], examples: Iterable[Example]) -> None:
    """Make sure that each class has examples from two recordings: one to learn from, and one to be tested on.

    Raises:
        TruthError: A class has not; the message lists them.
    """
    origins: dict[str, set[str]] = {name: set() for name in classes}
    for each in examples:
        for name in each.present:
            origins[name].add(each.origin)
    few = [name for name, found in origins.items() if len(found) < 2]
    if few:
        raise TruthError(
            f"{path} has examples from fewer than two recordings of {', '.join(few)}: a class needs one recording to "
            "learn from and another to be tested on"
        )
