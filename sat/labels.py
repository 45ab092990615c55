"""AudioSet's classes: the model's 527 outputs, the strong labels, and the ontology that relates them.

Sources: Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017 (the 527 and
the ontology); Hershey et al., "The benefit of temporally-strong labels in audio event classification", ICASSP 2021 (the
strong labels). `sat/data/README.md` states licences and changes. The files are read at first use.

Each class has one `Label`, whatever list it is in and whatever name it is looked up by.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from operator import index as as_index
from typing import Any, Literal, SupportsIndex

from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.printable import counted

Key = SupportsIndex | str
"""Identifies a class for `find`: an index, a mid or a display name."""

UNDER = "under:"
"""Prefix for `choose`: the class and all its descendants in the ontology."""

_SUBSETS = {
    "all": (),
    "train": ("in_strong_train",),
    "eval": ("in_strong_eval",),
    "shared": ("in_strong_eval", "in_weak_527"),
}


@dataclass(frozen=True)
class Label:
    """One AudioSet class."""

    mid: str
    """AudioSet's identifier of the class, such as /m/09x0r."""
    name: str
    """Display name: from the 527 if the class is one of them, else from the strong labels or the ontology."""
    index: int | None
    """Position in the model's outputs; None for a class without an output."""


@cache
def weak_labels() -> tuple[Label, ...]:
    """Return the 527 classes of the weak labels, in the order of the model's outputs (Gemmeke et al. 2017).

    >>> satpipe.labels()[0]
    Label(mid='/m/09x0r', name='Speech', index=0)
    """
    return tuple(find(row["mid"]) for row in _rows("class_labels_indices.csv"))


def all_labels() -> tuple[Label, ...]:
    """Return all known classes: the 527, then those of the strong labels and the ontology without an output."""
    return tuple(dict.fromkeys((*weak_labels(), *_known().values())))


def strong_labels(subset: Literal["all", "train", "eval", "shared"] = "all") -> tuple[Label, ...]:
    """Return classes of the strong labels, sorted by mid (Hershey et al. 2021).

    Args:
        subset: "all" (456 classes), those in the strong "train" (447) or "eval" (416) set, or the 381 "shared" by the
            evaluation set and the model's outputs.

    Raises:
        ConfigError: The subset is unknown.
    """
    if subset not in _SUBSETS:
        raise ConfigError(f"the subset of the strong labels must be one of {', '.join(_SUBSETS)}, not '{subset}'")
    rows = _rows("strong_classes.tsv")
    return tuple(find(row["mid"]) for row in rows if all(row[column] == "1" for column in _SUBSETS[subset]))


def find(key: Key) -> Label:
    """Return the class with this index (a number or its digits), mid or display name; case does not matter.

    Names from the 527, the strong labels and the ontology are all known.

    Raises:
        LabelError: No class matches; the message suggests similar ones.
    """
    text = key.strip().casefold() if isinstance(key, str) else str(as_index(key))
    known = _known()
    if text in known:
        return known[text]
    if text.removeprefix("-").isdecimal():
        raise LabelError(f"no label has the index {text}: indices are 0 to {len(weak_labels()) - 1}")
    called = _called()
    near = [called[name] for name in get_close_matches(text, called, n=3, cutoff=0.5)]
    hints = dict.fromkeys(f"{label.name!r} ({label.mid})" for label in near)
    raise LabelError(f"label {key!r} not found" + (f"; did you mean {' or '.join(hints)}?" if hints else ""))


def names() -> dict[str, str]:
    """Return the display name of each mid, casefolded name, and part of a name such as "gunfire"."""
    return {name: label.name for name, label in _called().items()}


@cache
def _called() -> dict[str, Label]:
    names = {name: label for name, label in _known().items() if not name.isdecimal()}
    parts = {part: label for name, label in names.items() for part in name.split(", ")}  # "Gunshot, gunfire"
    return parts | names


def choose(labels: Key | Iterable[Key]) -> tuple[int, ...]:
    """Return the positions of classes in the model's outputs, each once, in the order requested.

    Args:
        labels: One or several classes, each as for `find`. The prefix `under:` selects the class and all its
            descendants in the ontology: "under:Animal".

    Raises:
        LabelError: A class is unknown, the message suggests similar ones; or the model has no output for it.
    """
    several = [labels] if isinstance(labels, str) or not isinstance(labels, Iterable) else labels
    return tuple(dict.fromkeys(place for each in several for place in _outputs(each)))


def separated(texts: Iterable[str], is_name: Callable[[str], object] = lambda text: False) -> tuple[str, ...]:
    """Split texts into labels at commas, where a label may contain commas itself.

    From the left, the longest sequence of parts that is a known name becomes one label. A part that is not a name is
    kept; `choose` reports it.

    Args:
        texts: Labels separated by commas.
        is_name: True for names that are known besides AudioSet's.
    """
    labels = []
    for text in texts:
        parts = text.split(",")
        while parts:
            whole = ((n, ",".join(parts[:n]).strip()) for n in range(len(parts), 1, -1))
            number = next((n for n, name in whole if is_known(name) or is_name(name)), 1)
            labels.append(",".join(parts[:number]).strip())
            del parts[:number]
    return tuple(label for label in labels if label)


def is_known(text: str) -> bool:
    """Return True if `choose` knows a class of this name, with or without `under:`."""
    return text.strip().casefold().removeprefix(UNDER).strip() in _known()


def _outputs(wanted: Key) -> list[int]:
    text = wanted.strip() if isinstance(wanted, str) else ""
    subtree = text.casefold().startswith(UNDER)
    label = find(text[len(UNDER) :] if subtree else wanted)
    below = [other.index for other in descendants(label.mid) if other.index is not None]
    found = ([] if label.index is None else [label.index]) + (below if subtree else [])
    if not found:
        hint = (
            f"; '{UNDER}{label.name}' selects the {counted(len(below), 'class', 'classes')} below it" if below else ""
        )
        raise LabelError(f"the model has no output for '{label.name}' ({label.mid}){hint}")
    return found


def parents(mid: Key) -> tuple[Label, ...]:
    """Return the parent classes in the ontology (Gemmeke et al. 2017); a class can have several.

    Top classes have none. Neither do the 31 classes of the strong labels that are not in the ontology.

    Raises:
        LabelError: The class is unknown.
    """
    return _parents().get(find(mid), ())


def ancestors(mid: Key) -> tuple[Label, ...]:
    """Return all ancestors of a class in the ontology (Gemmeke et al. 2017), nearest first.

    Raises:
        LabelError: The class is unknown.
    """
    return _closure(find(mid), _parents())


def children(mid: Key) -> tuple[Label, ...]:
    """Return the child classes in the ontology (Gemmeke et al. 2017).

    Raises:
        LabelError: The class is unknown.
    """
    return _children().get(find(mid), ())


def descendants(mid: Key) -> tuple[Label, ...]:
    """Return all descendants of a class in the ontology (Gemmeke et al. 2017), nearest first.

    Raises:
        LabelError: The class is unknown.
    """
    return _closure(find(mid), _children())


def _closure(start: Label, links: Mapping[Label, tuple[Label, ...]]) -> tuple[Label, ...]:
    found = dict.fromkeys(links.get(start, ()))
    queue = list(found)
    for label in queue:  # grows during the loop
        new = [other for other in links.get(label, ()) if other not in found]
        found.update(dict.fromkeys(new))
        queue.extend(new)
    return tuple(found)


@cache
def _rows(name: str) -> list[dict[str, str]]:
    lines = (files("satpipe.sat") / "data" / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(lines, delimiter="\t" if name.endswith(".tsv") else ","))


@cache
def _ontology() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(
        (files("satpipe.sat") / "data" / "ontology.json").read_text(encoding="utf-8")
    )
    return entries


@cache
def _known() -> dict[str, Label]:
    """Return the class of each index, mid and casefolded name."""
    classes = [(row["mid"], row["display_name"], int(row["index"])) for row in _rows("class_labels_indices.csv")]
    known = {str(index): Label(mid, name, index) for mid, name, index in classes}
    known |= {key: label for label in known.values() for key in (label.mid, label.name.casefold())}
    others = [(row["mid"], row["display_name"]) for row in _rows("strong_classes.tsv")]
    others += [(entry["id"], entry["name"]) for entry in _ontology()]
    for mid, name in others:
        # A known mid with a new name is a renamed class. A known name with a new mid occurs once: the mid of Brief tone
        # has one more zero in the ontology than in the strong labels.
        label = known.get(mid) or known.get(name.casefold()) or Label(mid, name, None)
        known.setdefault(mid, label)
        known.setdefault(name.casefold(), label)
    return known


@cache
def _children() -> dict[Label, tuple[Label, ...]]:
    return {find(entry["id"]): tuple(find(child) for child in entry["child_ids"]) for entry in _ontology()}


@cache
def _parents() -> dict[Label, tuple[Label, ...]]:
    above: dict[Label, tuple[Label, ...]] = {}
    for parent, below in _children().items():
        for child in below:
            above[child] = (*above.get(child, ()), parent)
    return above
