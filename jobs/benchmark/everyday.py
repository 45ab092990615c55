"""Everyday sounds: compare the category that a model scores highest with the name of the file.

everyday.tsv contains the categories, the words in file names that stand for each, and its AudioSet classes.
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
    """Words in file names that stand for it."""
    classes: tuple[int, ...]
    """Its classes, positions in the model's outputs."""


@dataclass(frozen=True)
class Everyday:
    """Agreement of a model's best category with the name of the file."""

    clips: int
    """Number of clips whose name contains a category."""
    categories: int
    """Number of categories with at least one clip."""
    right: float
    """Share of the clips whose best category is the one in the name."""
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
    """Return the number of the category in a file name; None if the name contains no category or several."""
    words = {word.lower() for word in _WORD.findall(Path(name).stem)}
    found = [number for number, kind in enumerate(kinds) if kind.words & words]
    return found[0] if len(found) == 1 else None


def everyday(names: Sequence[str], scores: npt.NDArray[np.float32]) -> Everyday:
    """Compare the scores of clips, [N, 527], with their names; clips whose name contains no category are ignored."""
    kinds = categories()
    truth = [category_of(name, kinds) for name in names]
    rows = np.array([row for row, kind in enumerate(truth) if kind is not None], np.int64)
    true = np.array([kind for kind in truth if kind is not None], np.int64)
    guessed = np.stack([scores[rows][:, list(kind.classes)].max(1) for kind in kinds], 1).argmax(1)
    right = guessed == true
    shares = [float(right[true == kind].mean()) for kind in np.unique(true)]
    return Everyday(len(rows), len(shares), float(right.mean()), float(np.mean(shares)))
