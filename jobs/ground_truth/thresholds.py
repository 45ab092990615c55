"""Thresholds of classes, read from a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from satpipe.jobs.ground_truth.columns import LABEL
from satpipe.jobs.ground_truth.text_file import NO_VALUE, TextFile, cell_at, count_and_names, read_number
from satpipe.jobs.ground_truth.vocabulary import Vocabulary
from satpipe.jobs.metrics.arrays import Floats
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import TruthError
from satpipe.sat.labels import Label


def read_thresholds(path: str | Path, classes: Sequence[Label]) -> Floats:
    """Read a threshold for each class: a table with the columns mid or label, and threshold.

    Args:
        path: Path or URL.
        classes: The class set; thresholds of other classes are ignored.

    Returns:
        Thresholds [K], from 0 to 1, in the order of the classes.

    Raises:
        TruthError: The table cannot be read, has invalid lines, or does not have all classes.
        LabelError: The table has labels that satpipe does not know.
    """
    thresholds = threshold_table(path)
    missing = [each.name for each in classes if each not in thresholds]
    if missing:
        raise TruthError(f"{path} has no threshold for {count_and_names(missing, 'class', 'classes')}")
    return np.array([thresholds[each] for each in classes], np.float64)


def threshold_table(path: str | Path) -> dict[Label, float]:
    """Read the thresholds of all classes in a table: see `read_thresholds`.

    Raises:
        TruthError: The table cannot be read, or has invalid lines.
        LabelError: The table has labels that satpipe does not know.
    """
    file = TextFile(locate(path))
    column, threshold = file.column(LABEL), file.column(["threshold"])
    if column is None or threshold is None:
        raise TruthError(f"{file.path} must have a header with the columns mid or label, and threshold")
    vocabulary = Vocabulary()
    thresholds: dict[Label, float] = {}
    for number, cells in file.body():
        if cell_at(cells, threshold) in NO_VALUE:
            continue  # as `evaluate` writes a class without a threshold
        with file.line(number):
            label = vocabulary.one(cell_at(cells, column))
            value = read_number(cell_at(cells, threshold), "threshold")
            if not 0 <= value <= 1:
                raise TruthError(f"threshold {value:g} is not from 0 to 1")
            file.once(label, repr(label.name))
            thresholds[label] = value
    file.check()
    return thresholds
