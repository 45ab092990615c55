"""Class sets, and labels as numbers of the classes of a set."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth.aliases import Aliases
from satpipe.jobs.ground_truth.columns import LABEL
from satpipe.jobs.ground_truth.strong_labels import StrongLabels
from satpipe.jobs.ground_truth.text_file import TextFile, cell_at, unquoted
from satpipe.jobs.ground_truth.vocabulary import Vocabulary
from satpipe.jobs.ground_truth.weak_labels import WeakLabels
from satpipe.jobs.metrics.arrays import Bools, Ints, repeats
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.targets import Target
from satpipe.sat.errors import ConfigError, TruthError
from satpipe.sat.labels import Label, ancestors, strong_labels, weak_labels

DEFAULT = "381"
CLASS_SETS = ("381", "407", "416", "527")


@dataclass(frozen=True, eq=False)
class ClassSet:
    """The classes that figures are computed for."""

    name: str
    labels: tuple[Label, ...]
    """The classes, [K]."""
    members: tuple[tuple[Label, ...], ...]
    """AudioSet's classes that each stands for: itself, or those of a target of aliases; its score is their maximum."""
    own: tuple[Target, ...] = ()
    """Own classes, [K]; none if the classes are AudioSet's."""

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The outputs of the model behind each class, none if it has none, or the own classes, [K]."""
        if self.own:
            return self.own
        outputs = (tuple(each.index for each in several if each.index is not None) for several in self.members)
        return tuple(
            Target(label.mid, label.name, columns) for label, columns in zip(self.labels, outputs, strict=True)
        )

    @cached_property
    def scored(self) -> Ints:
        """Positions of the classes that have scores, [S]: those with a member among the model's outputs."""
        return np.array([k for k, target in enumerate(self.targets) if target.columns], np.int32)

    @property
    def unscored(self) -> list[str]:
        """Names of the classes without scores."""
        return [target.label for target in self.targets if not target.columns]

    @property
    def is_audioset(self) -> bool:
        """True if each class is one of AudioSet's."""
        return all(members == (label,) for label, members in zip(self.labels, self.members, strict=True))


def class_set(name: str | Path | None, aliases: Aliases | None = None) -> ClassSet:
    """Return the classes that figures are computed for.

    Args:
        name: "527", the model's outputs in their order; of the strong labels "416", those in the evaluation set,
            "407", those in the training and the evaluation set, "381", those in the evaluation set and the 527 (as in
            the paper). Or a file: a mid or a name in each line, or a table with a column mid or label. None: the
            targets of the aliases, else "381".
        aliases: Labels of another set, which a file may list.

    Raises:
        ConfigError: Neither a class set nor a file has this name.
        TruthError: The file cannot be read, lists a class twice or lists none.
        LabelError: The file lists a class that satpipe does not know.
    """
    members = {} if aliases is None else aliases.members
    if name is None and aliases is not None:
        return ClassSet(aliases.name, tuple(members), tuple(members.values()), aliases.own)
    name = name or DEFAULT
    labels = _published(str(name)) or _listed(name, aliases)
    return ClassSet(str(name), labels, tuple(members.get(label, (label,)) for label in labels))


def _published(name: str) -> tuple[Label, ...]:
    match name:
        case "527":
            return weak_labels()
        case "416":
            return strong_labels("eval")
        case "407":
            train = set(strong_labels("train"))
            return tuple(label for label in strong_labels("eval") if label in train)
        case "381":
            return strong_labels("shared")
    return ()


def _listed(name: str | Path, aliases: Aliases | None) -> tuple[Label, ...]:
    path = locate(name)
    if not path.is_file():
        raise ConfigError(f"'{name}' is neither a class set ({', '.join(CLASS_SETS)}) nor a file")
    file = TextFile(path)
    vocabulary = Vocabulary(aliases=aliases)
    labels: list[Label] = []
    for number, text in _class_cells(file):
        with file.line(number):
            label = vocabulary.one(text)
            file.once(label, repr(label.name))
            labels.append(label)
    file.check()
    if not labels:
        raise TruthError(f"{path} lists no class")
    return tuple(labels)


def _class_cells(file: TextFile) -> Iterable[tuple[int, str]]:
    """Return line number and mid or name of each class in a file."""
    column = file.column(LABEL)
    if column is not None:
        return [(number, cell_at(cells, column)) for number, cells in file.body()]
    # Without a header: a mid, which a name may follow, or a name, which may contain commas.
    return [
        (number, re.split(r"[\t,;]", line)[0].strip() if line.startswith("/") else unquoted(line.strip()))
        for number, line in file.lines
    ]


def select(labels: StrongLabels, classes: Sequence[Label]) -> Events:
    """Return the events of a class set unchanged; their `label` is a position in the set."""
    row, label = _of_classes(labels.events.label, labels.labels, classes, expand=False)
    return replace(labels.events.take(row), label=label)


def expanded(labels: StrongLabels, classes: Sequence[Label]) -> Events:
    """Return the events expanded to parent classes: an event of a class is also one of all its ancestors.

    Events outside the class set count for their ancestors in it. Events of one class that overlap or touch are merged.
    The ontology is that of Gemmeke et al. 2017, which does not have 31 classes of the strong labels.
    """
    row, label = _of_classes(labels.events.label, labels.labels, classes, expand=True)
    return replace(labels.events.take(row), label=label).merged()


def positives(labels: WeakLabels, classes: Sequence[Label] | None = None, *, expand: bool = False) -> Bools:
    """Return which classes occur in which clips.

    Args:
        labels: Weak labels.
        classes: The class set; by default the model's outputs in their order.
        expand: A clip with a class also has all its ancestors in the ontology.

    Returns:
        Booleans [clips, K].
    """
    classes = weak_labels() if classes is None else classes
    row, label = _of_classes(labels.label, labels.labels, classes, expand=expand)
    found = np.zeros((len(labels.clips), len(classes)), bool)
    found[labels.clip[row], label] = True
    return found


def _of_classes(
    label: Ints, labels: Sequence[Label], classes: Sequence[Label], *, expand: bool
) -> tuple[npt.NDArray[Any], Ints]:
    """Return rows whose label is in a class set and its position there; if `expand`, also for each ancestor."""
    at = {each: place for place, each in enumerate(classes)}
    families = [(own, *(ancestors(own.mid) if expand else ())) for own in labels]
    targets = [[at[each] for each in family if each in at] for family in families]
    count = np.array([len(each) for each in targets], np.int64)
    flat = np.array([place for each in targets for place in each], np.int32)
    row, nth = repeats(count[label])
    return row, flat[(np.cumsum(count) - count)[label[row]] + nth]
