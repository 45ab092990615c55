"""Everyday sounds: which of a few dozen categories a model is surest of, against the name of the file.

everyday.tsv has the categories, the words of file names that stand for one, and AudioSet's classes of each.
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
    """A kind of sound.

    Attributes:
        name: What it is called.
        words: Of file names.
        classes: Outputs of the model.
    """

    name: str
    words: frozenset[str]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Everyday:
    """How often a model's surest category is that of the file's name.

    Attributes:
        clips: Clips whose name tells a category.
        categories: Categories that have a clip.
        right: Share of the clips.
        mean_right: Mean over the categories of the share of their clips.
    """

    clips: int
    categories: int
    right: float
    mean_right: float


def categories() -> list[Category]:
    """Read the table."""
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Category(row["category"], frozenset(row["words"].split()), choose(row["classes"].split(";"))) for row in rows
    ]


def told(name: str, kinds: Sequence[Category]) -> int | None:
    """Which category the last part of a path names, by number; None if none or several."""
    words = {word.lower() for word in _WORD.findall(Path(name).stem)}
    found = [number for number, kind in enumerate(kinds) if kind.words & words]
    return found[0] if len(found) == 1 else None


def everyday(names: Sequence[str], scores: npt.NDArray[np.float32]) -> Everyday:
    """Compare the scores of clips, [N, 527], with what their names tell; names that tell nothing do not count."""
    kinds = categories()
    truth = [told(name, kinds) for name in names]
    rows = np.array([row for row, kind in enumerate(truth) if kind is not None], np.int64)
    true = np.array([kind for kind in truth if kind is not None], np.int64)
    guessed = np.stack([scores[rows][:, list(kind.classes)].max(1) for kind in kinds], 1).argmax(1)
    right = guessed == true
    shares = [float(right[true == kind].mean()) for kind in np.unique(true)]
    return Everyday(len(rows), len(shares), float(right.mean()), float(np.mean(shares)))
