"""Everyday sounds: the category that a model scores highest, compared with the name of the file.

everyday.tsv contains the categories, the words for each in file names, and its AudioSet classes.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from satpipe.sat.labels import choose

TABLE = Path(__file__).parent / "everyday.tsv"
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class Category:
    """A kind of sound."""

    name: str
    words: frozenset[str]
    """Words for it in file names."""
    classes: tuple[int, ...]
    """Outputs of the model."""


@dataclass(frozen=True)
class Everyday:
    """Agreement of a model's best category with the name of the file."""

    clips: int
    """Number of clips whose name gives a category."""
    categories: int
    """Number of categories that have a clip."""
    right: float
    """Share of the clips for which both agree."""
    mean_right: float
    """Mean of this share over the categories."""


def categories() -> list[Category]:
    """Read the table."""
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Category(row["category"], frozenset(row["words"].split()), choose(row["classes"].split(";"))) for row in rows
    ]


def category_of(name: str, kinds: Sequence[Category]) -> int | None:
    """Return the number of the category that the last part of a path names; None if none or several."""
    words = {word.lower() for word in _WORD.findall(Path(name).stem)}
    found = [number for number, kind in enumerate(kinds) if kind.words & words]
    return found[0] if len(found) == 1 else None


def everyday(names: Sequence[str], scores: npt.NDArray[np.float32]) -> Everyday:
    """Compare the scores of clips, [N, 527], with their names; clips whose name gives no category do not count."""
    kinds = categories()
    truth = [category_of(name, kinds) for name in names]
    rows = np.array([row for row, kind in enumerate(truth) if kind is not None], np.int64)
    true = np.array([kind for kind in truth if kind is not None], np.int64)
    guessed = np.stack([scores[rows][:, list(kind.classes)].max(1) for kind in kinds], 1).argmax(1)
    right = guessed == true
    shares = [float(right[true == kind].mean()) for kind in np.unique(true)]
    return Everyday(len(rows), len(shares), float(right.mean()), float(np.mean(shares)))
