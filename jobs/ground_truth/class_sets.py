"""Classes that figures are counted over: their sets and thresholds, and true labels by class set."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth.columns import LABEL
from satpipe.jobs.ground_truth.strong_labels import StrongLabels
from satpipe.jobs.ground_truth.text_file import NO_VALUE, TextFile, cell_at, read_number, some, unquoted
from satpipe.jobs.ground_truth.vocabulary import Vocabulary
from satpipe.jobs.ground_truth.weak_labels import WeakLabels
from satpipe.jobs.metrics.sound_events import Events, Floats, Ints
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import ConfigError, TruthError
from satpipe.sat.labels import Label, ancestors, strong_labels, weak_labels

CLASS_SETS = ("381", "407", "416", "527")


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
    file = TextFile(path)
    vocabulary = Vocabulary()
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


def _class_cells(file: TextFile) -> Iterable[tuple[int, str]]:
    """Return line number and mid or name of each class in a file."""
    column = file.column(LABEL)
    if column is not None:
        return [(number, cell_at(cells, column)) for number, cells in file.body()]
    # Without a header: a mid, maybe with a name behind it, or a name, maybe with commas.
    return [
        (number, re.split(r"[\t,;]", line)[0].strip() if line.startswith("/") else unquoted(line.strip()))
        for number, line in file.lines
    ]


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
    found = threshold_table(path)
    lacking = [each.name for each in classes if each not in found]
    if lacking and default is None:
        raise TruthError(f"{path} has no threshold for {some(lacking, 'class', 'classes')}")
    return np.array([found.get(each, default) for each in classes], np.float64)


def threshold_table(path: str | Path) -> dict[Label, float]:
    """Read the thresholds of all classes that a table has one for: see `read_thresholds`.

    Raises:
        TruthError: It cannot be read, or has lines that are not right.
        LabelError: It has labels that satpipe does not know.
    """
    file = TextFile(locate(path))
    column, threshold = file.column(LABEL), file.column(["threshold"])
    if column is None or threshold is None:
        raise TruthError(f"{file.path} needs a header with the columns mid or label, and threshold")
    vocabulary = Vocabulary()
    found: dict[Label, float] = {}
    lines: dict[Label, int] = {}
    for number, cells in file.body():
        if cell_at(cells, threshold) in NO_VALUE:
            continue  # as `evaluate` writes a class that has none
        with file.line(number):
            label = vocabulary.one(cell_at(cells, column))
            value = read_number(cell_at(cells, threshold), "threshold")
            if not 0 <= value <= 1:
                raise TruthError(f"threshold {value:g} is not from 0 to 1")
            if label in found:
                raise TruthError(f"{label.name!r} is in line {lines[label]} already")
            found[label], lines[label] = value, number
    file.check()
    return found


def select(truth: StrongLabels, classes: Sequence[Label]) -> Events:
    """Return the events of a class set, as they are; `label` is a position in it."""
    row, label = _of_classes(truth.events.label, truth.labels, classes, closed=False)
    return replace(truth.events.take(row), label=label)


def closed(truth: StrongLabels, classes: Sequence[Label]) -> Events:
    """Return the events closed over the ontology: an event of a class is one of all classes above it as well.

    Events outside the class set count for classes above them that are in it. Of one class, events that overlap or
    touch are made one. The ontology is that of Gemmeke et al. 2017; it lacks 31 of the strong labels' classes.
    """
    row, label = _of_classes(truth.events.label, truth.labels, classes, closed=True)
    return replace(truth.events.take(row), label=label).merged()


def positives(truth: WeakLabels, classes: Sequence[Label] | None = None, *, closed: bool = False) -> npt.NDArray[Any]:
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


def _of_classes(
    label: Ints, labels: Sequence[Label], classes: Sequence[Label], *, closed: bool
) -> tuple[npt.NDArray[np.intp], Ints]:
    """Rows whose label is in a class set, and its position there; if closed, again for each class above it."""
    at = {each: place for place, each in enumerate(classes)}
    meant = [(own, *(ancestors(own.mid) if closed else ())) for own in labels]
    targets = [[at[each] for each in several if each in at] for several in meant]
    count = np.array([len(each) for each in targets], np.int64)
    flat = np.array([place for each in targets for place in each], np.int32)
    first = np.cumsum(count) - count
    times = count[label]
    row = np.repeat(np.arange(len(label)), times)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    return row, flat[first[label[row]] + nth]
