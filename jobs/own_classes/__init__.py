"""Own classes: learn them from examples, and score recordings for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs.options.own_classes import LearnOptions
from satpipe.jobs.own_classes.figures import ClassFigures, figures
from satpipe.jobs.own_classes.fit import Examples, fit
from satpipe.jobs.own_classes.labels import BACKGROUND, Example, Labelled, check_origins, read_labels
from satpipe.jobs.own_classes.vectors import Embedded, from_audio, from_tables
from satpipe.pipeline.option import lists
from satpipe.pipeline.storage import locate, output_file
from satpipe.sat.labels import is_known
from satpipe.sat.own_classes import OwnClasses, table_name, to_bytes
from satpipe.sat.printable import counted

MIN_THRESHOLD = 0.001
__all__ = ["Learned", "learn", "write"]


@dataclass(frozen=True)
class Learned:
    """Own classes, and how well they are recognised.

    Attributes:
        classes: The classifiers.
        figures: Of each class.
        notes: What the user should know.
    """

    classes: OwnClasses
    figures: tuple[ClassFigures, ...]
    notes: tuple[str, ...]


@lists(LearnOptions)
def learn(labels: str | Path, **given: Any) -> Learned:
    """Learn classes from labelled examples, as `satpipe learn` does; `write` writes them to a file.

    Args:
        labels: A folder with a sub-folder of recordings for each class, or labelled stretches.
        given: Options, as keyword arguments.

    Returns:
        The classes, and how well each is recognised.

    Raises:
        ConfigError: An option cannot work, or a class has no recordings.
        TruthError: The labels cannot be read, or there are too few examples.
        OutputError: The embeddings cannot be read.
    """
    options = LearnOptions(**given)
    labelled = read_labels(labels)
    check_origins(labels, labelled.classes, labelled.examples)
    read = from_tables if options.embeddings_from else from_audio
    embedded = read(labelled, options)
    check_origins(labels, labelled.classes, embedded.examples)
    examples = as_examples(labelled.classes, embedded)
    fitted = fit(examples, options.seed)
    found = figures(examples, fitted, options.seed)
    classes = OwnClasses(
        labels=labelled.classes,
        thresholds=tuple(max(MIN_THRESHOLD, round(each.threshold, 4)) for each in found),
        model_sha256=embedded.model_sha256,
        model=embedded.model,
        chunk_s=embedded.chunk_s,
        weight=fitted.weight,
        bias=fitted.bias,
        card={
            "examples": len(embedded.examples),
            "recordings": len(np.unique(examples.group)),
            "background": sum(not each.present and each.absent is None for each in embedded.examples),
            "regularisation": fitted.strength,
            "seed": options.seed,
            "figures": "of examples scored by classifiers that had not seen their recording; intervals of 95 %",
            "classes": [each.card() for each in found],
        },
    )
    return Learned(classes, tuple(found), (*embedded.notes, *_few_others(examples), *_notes(labelled)))


def write(learned: Learned, path: str | Path) -> None:
    """Write the file of the classes.

    Raises:
        ConfigError: The name of the file cannot be that of a table.
        OutputError: The file cannot be written.
    """
    table_name(path)
    with output_file(locate(path)) as temporary:
        temporary.write_bytes(to_bytes(learned.classes))


def as_examples(classes: Sequence[str], embedded: Embedded) -> Examples:
    """Return examples to learn from.

    An example counts against each class that it is not labelled with, unless an example of that class overlaps it, or
    somebody only denied another class there.
    """
    given = embedded.examples
    present = np.array([[name in each.present for name in classes] for each in given], bool)
    known = np.array([[_is_known(name, each) for name in classes] for each in given], bool)
    for row, other in _overlapping(given):
        known[row] &= present[row] | ~present[other]
    origins = {name: number for number, name in enumerate(dict.fromkeys(each.origin for each in given))}
    group = np.array([origins[each.origin] for each in given], np.int32)
    return Examples(tuple(classes), embedded.vectors, present, known, group, embedded.known_weight)


def _is_known(name: str, example: Example) -> bool:
    return example.absent is None or name in example.absent or name in example.present


def _overlapping(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """Return the pairs of different examples of a recording that overlap, each in both orders."""
    order = sorted(range(len(examples)), key=lambda row: (examples[row].recording, examples[row].start_s))
    pairs: list[tuple[int, int]] = []
    for place, row in enumerate(order):
        end_s = examples[row].end_s
        for other in order[place + 1 :]:
            same = examples[other].recording == examples[row].recording
            if not same or (end_s is not None and examples[other].start_s >= end_s):
                break
            pairs += [(row, other), (other, row)]
    return pairs


def _few_others(examples: Examples) -> list[str]:
    """Return a note for each class with fewer examples of other sounds than of its own."""
    own, others = examples.present.sum(0), (examples.known & ~examples.present).sum(0)
    return [
        f"{name} has {counted(own[k], 'example')}, but there are only {others[k]:,} of other sounds: add more as "
        f"{BACKGROUND}, or it may be found everywhere"
        for k, name in enumerate(examples.labels)
        if others[k] < own[k]
    ]


def _notes(labelled: Labelled) -> list[str]:
    return [
        f"'{name}' is also a class of AudioSet: your own class begins with what the model knows of it, and has the mid "
        f"own/{name}"
        for name in labelled.classes
        if is_known(name)
    ]
