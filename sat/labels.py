"""AudioSet's classes: the model's 527 outputs, the strong labels and the ontology that relates them.

Sources: Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017 (the 527 and
the ontology); Hershey et al., "The benefit of temporally-strong labels in audio event classification", ICASSP 2021 (the
strong labels). `sat/data/README.md` has licences and changes. The files are read at first use.

There is one `Label` for each class, whichever list or name it was reached by.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from operator import index as as_index
from typing import Any, Literal, SupportsIndex

from satpipe.sat.errors import ConfigError, LabelError

Key = SupportsIndex | str
"""What `find` accepts: an index, a mid or a display name."""

UNDER = "under:"
"""Before a class, for `choose`: that class and all below it in the ontology."""

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
    """Display name: that of the 527 if the class is one of them, else that of the strong labels or the ontology."""
    index: int | None
    """Position in the model's outputs; None for a class the model has no output for."""


@cache
def weak_labels() -> tuple[Label, ...]:
    """Return the 527 classes of the weak labels, in the order of the model's outputs (Gemmeke et al. 2017).

    >>> satpipe.labels()[0]
    Label(mid='/m/09x0r', name='Speech', index=0)
    """
    return tuple(find(row["mid"]) for row in _rows("class_labels_indices.csv"))


def strong_labels(subset: Literal["all", "train", "eval", "shared"] = "all") -> tuple[Label, ...]:
    """Return classes of the strong labels, sorted by mid (Hershey et al. 2021).

    Args:
        subset: "all" 456, those that occur in the strong "train" (447) or "eval" (416) set, or the 381 "shared" by
            the evaluation set and the model's outputs.

    Raises:
        ConfigError: There is no such subset.
    """
    if subset not in _SUBSETS:
        raise ConfigError(f"there is no subset '{subset}' of the strong labels; there are {', '.join(_SUBSETS)}")
    rows = _rows("strong_classes.tsv")
    return tuple(find(row["mid"]) for row in rows if all(row[column] == "1" for column in _SUBSETS[subset]))


def find(key: Key) -> Label:
    """Return the class with this index (a number or its digits), mid or display name, in any case.

    The names of the 527, of the strong labels and of the ontology all count.

    Raises:
        LabelError: There is none; the message names the nearest ones.
    """
    text = key.strip().casefold() if isinstance(key, str) else str(as_index(key))
    known = _known()
    if text in known:
        return known[text]
    if text.removeprefix("-").isdecimal():
        raise LabelError(f"there is no label with index {text}; they go from 0 to {len(weak_labels()) - 1}")
    names = {name: label for name, label in known.items() if not name.isdecimal()}
    parts = {part: label for name, label in names.items() for part in name.split(", ")}  # "Gunshot, gunfire"
    called = parts | names
    near = [called[name] for name in get_close_matches(text, called, n=3, cutoff=0.5)]
    hints = dict.fromkeys(f"{label.name!r} ({label.mid})" for label in near)
    raise LabelError(f"there is no label {key!r}" + (f"; did you mean {' or '.join(hints)}?" if hints else ""))


def choose(labels: Key | Iterable[Key]) -> tuple[int, ...]:
    """Return the positions of classes in the model's outputs, each once, in the order they are asked for.

    Args:
        labels: One or several: an index, a mid or a display name in any case, as for `find`; or `under:` and one of
            these, which means that class and all below it in the ontology: "under:Animal".

    Raises:
        LabelError: There is no such class, with the nearest ones named; or the model has no output for it.
    """
    several = [labels] if isinstance(labels, str) or not isinstance(labels, Iterable) else labels
    return tuple(dict.fromkeys(place for each in several for place in _outputs(each)))


def separated(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of texts that name one or several with commas between: names may have commas themselves.

    From the left, as many parts as together are a name make one; what is no name stays for `choose` to complain of.
    """
    labels = []
    for text in texts:
        parts = text.split(",")
        while parts:
            whole = [n for n in range(len(parts), 1, -1) if _is_known(",".join(parts[:n]))]
            number = whole[0] if whole else 1
            labels.append(",".join(parts[:number]).strip())
            del parts[:number]
    return tuple(label for label in labels if label)


def _is_known(text: str) -> bool:
    return text.strip().casefold().removeprefix(UNDER).strip() in _known()


def _outputs(wanted: Key) -> list[int]:
    text = wanted.strip() if isinstance(wanted, str) else ""
    subtree = text.casefold().startswith(UNDER)
    label = find(text[len(UNDER) :] if subtree else wanted)
    below = [other.index for other in descendants(label.mid) if other.index is not None]
    found = ([] if label.index is None else [label.index]) + (below if subtree else [])
    if not found:
        hint = f"; '{UNDER}{label.name}' takes the {len(below)} classes below it" if below else ""
        raise LabelError(f"the model has no output for '{label.name}' ({label.mid}){hint}")
    return found


def parents(mid: Key) -> tuple[Label, ...]:
    """Return the classes right above this one in the ontology; a class can have several.

    A top class has none, nor have the 31 classes of the strong labels that the ontology (Gemmeke et al. 2017) lacks.

    Raises:
        LabelError: There is no such class.
    """
    return _parents().get(find(mid), ())


def ancestors(mid: Key) -> tuple[Label, ...]:
    """Return all classes above this one in the ontology (Gemmeke et al. 2017), nearest first, without itself.

    Raises:
        LabelError: There is no such class.
    """
    return _closure(find(mid), _parents())


def children(mid: Key) -> tuple[Label, ...]:
    """Return the classes right below this one in the ontology (Gemmeke et al. 2017).

    Raises:
        LabelError: There is no such class.
    """
    return _children().get(find(mid), ())


def descendants(mid: Key) -> tuple[Label, ...]:
    """Return all classes below this one in the ontology (Gemmeke et al. 2017), nearest first, without itself.

    Raises:
        LabelError: There is no such class.
    """
    return _closure(find(mid), _children())


def _closure(start: Label, links: Mapping[Label, tuple[Label, ...]]) -> tuple[Label, ...]:
    found = dict.fromkeys(links.get(start, ()))
    queue = list(found)
    for label in queue:  # grows while it is walked
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
    """Each index, mid and casefolded name, and its class."""
    classes = [(row["mid"], row["display_name"], int(row["index"])) for row in _rows("class_labels_indices.csv")]
    known = {str(index): Label(mid, name, index) for mid, name, index in classes}
    known |= {key: label for label in known.values() for key in (label.mid, label.name.casefold())}
    others = [(row["mid"], row["display_name"]) for row in _rows("strong_classes.tsv")]
    others += [(entry["id"], entry["name"]) for entry in _ontology()]
    for mid, name in others:
        # A known mid with a new name is a renamed class. A known name with a new mid happens once: the ontology's
        # Brief tone has a zero more in its mid than that of the strong labels.
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
