"""Accuracy of own classes over the number of examples, beside that of AudioSet's classes without any example.

The accuracy is the share of the clips whose own class scores highest, as the mean over the classes. A clip is scored by
the mean over its chunks. Examples are drawn by recording: no clip of a recording with an example is tested.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.benchmark.common import Say, dated
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints
from satpipe.jobs.own_classes.fit import Examples, fit
from satpipe.jobs.own_classes.labels import Example, read_labels
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.tagging.embed import Stretch, embed, recording_of
from satpipe.sat.errors import LabelError
from satpipe.sat.labels import choose
from satpipe.sat.own_classes import OwnClasses
from satpipe.sat.weights.registry import resolve

NUMBERS = (2, 5, 32)
"""Examples of each class; as many as possible where a class has fewer."""
DRAWS = 10
TESTED = 6  # minimum number of recordings of each class that are not examples
MODELS = ("bundled", "bundled_1s")
SEPARATOR = ";"  # between the AudioSet classes in the name of a folder


def benchmark(folder: Path, say: Say) -> dict[str, Any]:
    """Return the accuracy for each model and number of examples.

    Args:
        folder: A folder for each class. For the accuracy without examples, its name is that of an AudioSet class, or
            of several, separated by `;`, of which the highest score counts.
        say: Called before each model.
    """
    labelled = read_labels(folder)
    figures: dict[str, Any] = {"clips": len(labelled.examples), "classes": list(labelled.classes), "models": {}}
    label = np.array(
        [next(iter(labelled.classes.index(name) for name in each.present), -1) for each in labelled.examples]
    )
    names = list(dict.fromkeys(each.origin for each in labelled.examples))
    group = np.array([names.index(each.origin) for each in labelled.examples])
    for model in MODELS:
        say(model)
        vectors, scores = _embedded(labelled.folder, labelled.examples, model)
        zero = _of_audioset(labelled.classes, scores)
        figures["models"][model] = {str(number): _accuracies(vectors, zero, label, group, number) for number in NUMBERS}
    return dated(figures)


def _embedded(folder: Path, examples: tuple[Example, ...], model: str) -> tuple[Floats, Floats]:
    """Return the mean embedding and the mean scores of each clip, [n, D] and [n, 527]."""
    tagger = resolve(model).tagger(embeddings=True)
    sources = {source.recording: source for source in Search((str(folder),))}
    found = embed([Stretch(recording_of(sources[each.recording])) for each in examples], tagger)
    return np.stack([each.embeddings.mean(0) for each in found]), np.stack([each.scores.mean(0) for each in found])


def _of_audioset(classes: tuple[str, ...], scores: Floats) -> Floats | None:
    """Return the score of each class by its name, [n, K]; None if a name is not of AudioSet."""
    try:
        columns = [list(choose(name.split(SEPARATOR))) for name in classes]
    except LabelError:
        return None
    return np.stack([scores[:, each].max(1) for each in columns], axis=1)


def _accuracies(vectors: Floats, zero: Floats | None, label: Ints, group: Ints, number: int) -> dict[str, Any]:
    own, without = [], []
    for taught in _draws(label, group, number):
        tested = ~np.isin(group, group[taught]) & (label >= 0)
        own.append(_accuracy(_scores(vectors, label, group, taught), label, tested))
        if zero is not None:
            without.append(_accuracy(zero, label, tested))
    mean, error = float(np.mean(own)), float(np.std(own, ddof=1) / np.sqrt(len(own)))
    return {
        "accuracy": round(mean, 4),
        "standard_deviation": round(float(np.std(own, ddof=1)), 4),
        "mean_minus_two_standard_errors": round(mean - 2 * error, 4),
        "without_examples": round(float(np.mean(without)), 4) if without else None,
    }


def _draws(label: Ints, group: Ints, number: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the examples of each draw: one clip of each of so many recordings of each class, and the background."""
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        rows = np.flatnonzero(label < 0).tolist()
        for k in range(label.max() + 1):
            groups = rng.permutation(np.unique(group[label == k]))
            chosen = groups[: min(number, max(1, len(groups) - TESTED))]
            rows += [int(np.flatnonzero((group == each) & (label == k))[0]) for each in chosen]
        yield np.array(rows)


def _scores(vectors: Floats, label: Ints, group: Ints, taught: npt.NDArray[np.int64]) -> Floats:
    present: Bools = label[taught][:, None] == np.arange(label.max() + 1)
    names = tuple(map(str, range(present.shape[1])))
    embeddings, of = vectors[taught].astype(np.float32), group[taught].astype(np.int32)
    fitted = fit(Examples(names, embeddings, present, np.ones_like(present), of), 0)
    classes = OwnClasses(names, (0.5,) * len(names), "", "", 0.0, fitted.weight, fitted.bias)
    return classes.scores(vectors).astype(np.float64)


def _accuracy(scores: Floats, label: Ints, tested: Bools) -> float:
    right = scores.argmax(1) == label
    return float(np.mean([right[tested & (label == k)].mean() for k in range(label.max() + 1)]))
