"""Fit classifiers of own classes: one logistic regression for each class, on the embeddings of examples."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints
from satpipe.jobs.metrics.ranking import rank
from satpipe.sat.own_classes import normalised
from sklearn.linear_model import LogisticRegression

FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0)  # C, the inverse of the regularisation; accuracy depends little on it
TRUST = 10.0  # scale of the score of AudioSet's class of the same name: what it says costs a hundredth
_MIN_SPREAD = 1e-3  # of a dimension that hardly varies
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples to learn from."""

    labels: tuple[str, ...]
    """Names of the classes, [K]."""
    embeddings: Rows
    """Mean over the chunks of each example, [n, D]."""
    present: Bools
    """Whether an example has a class, [n, K]."""
    known: Bools
    """Whether that is known, [n, K]."""
    group: Ints
    """Number of the recording that each is from, [n]."""
    known_weight: Rows | None = None
    """Weights for normalised embeddings of AudioSet's class of the same name, [K, D]; NaN for a class without one."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """Classifiers, and scores of examples by classifiers that had not seen their recording."""

    weight: Rows
    """[K, D], for normalised embeddings."""
    bias: Rows
    """[K]."""
    strength: float
    """The C of `STRENGTHS` with the highest mean average precision on recordings that were not seen."""
    held_out: Floats
    """Scores of the examples, [n, K]; NaN where no classifier could be fitted without the example's recording."""


def fit(examples: Examples, seed: int) -> Fitted:
    """Fit the classifiers.

    The recordings are divided into `FOLDS` parts; each part is scored by classifiers fitted to the others. All examples
    of a recording are in one part.
    """
    inputs = normalised(examples.embeddings)
    fold = folds(examples, seed)
    held_out = {strength: _held_out(inputs, examples, fold, strength) for strength in STRENGTHS}
    strength = max(STRENGTHS, key=lambda each: _mean_precision(held_out[each], examples))  # the first of equal ones
    weight, bias = _classifiers(inputs, examples, np.ones(len(inputs), bool), strength)
    return Fitted(weight, bias, strength, held_out[strength])


def folds(examples: Examples, seed: int) -> Ints:
    """Return the part of each example, [n], with the recordings of each class spread over the parts."""
    groups = np.unique(examples.group)
    groups = np.random.default_rng(seed).permutation(groups)
    has = np.stack([(examples.present & (examples.group == group)[:, None]).any(0) for group in groups])  # [G, K]
    rarity = [int(has[:, row].sum(0).min(initial=len(groups))) for row in has]
    held = np.zeros((FOLDS, has.shape[1] + 1), np.int64)  # recordings of each class in each part; last: all recordings
    part_of: dict[int, int] = {}
    for place in np.argsort(rarity, kind="stable"):
        # The rarest class of the recording decides.
        rarest = min(np.flatnonzero(has[place]), key=lambda k: has[:, k].sum(), default=has.shape[1])
        part = int(np.lexsort((held[:, -1], held[:, rarest]))[0])
        held[part, :-1] += has[place]
        held[part, -1] += 1
        part_of[int(groups[place])] = part
    return np.array([part_of[int(group)] for group in examples.group], np.int32)


def _held_out(inputs: Rows, examples: Examples, fold: Ints, strength: float) -> Floats:
    scores = np.full(examples.present.shape, np.nan)
    for part in np.unique(fold):
        seen = fold != part
        weight, bias = _classifiers(inputs, examples, seen, strength)
        scores[~seen] = 1 / (1 + np.exp(-(inputs[~seen] @ weight.T + bias)))
    return scores


def _classifiers(inputs: Rows, examples: Examples, rows: Bools, strength: float) -> tuple[Rows, Rows]:
    """Return weights [K, D] and biases [K] of classifiers fitted to some of the examples; NaN for a class with none."""
    mean, spread = inputs[rows].mean(0), inputs[rows].std(0) + _MIN_SPREAD
    standard = (inputs - mean) / spread
    weight = np.full((len(examples.labels), inputs.shape[1]), np.nan, np.float32)
    priors = np.full_like(weight, np.nan) if examples.known_weight is None else examples.known_weight
    bias = np.full(len(examples.labels), np.nan, np.float32)
    for k, (known, present) in enumerate(_by_class(examples)):
        used = rows & known
        if len(np.unique(present[used])) == 2:
            # What the model says of AudioSet's class of this name, if any, is a further feature, hardly penalised.
            features, prior = standard[used], np.nan_to_num(priors[k])
            if prior.any():
                features = np.column_stack([features, (inputs[used] - mean) @ prior * TRUST])
            model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3).fit(features, present[used])
            own, trust = np.split(model.coef_[0], [len(mean)])
            weight[k] = own / spread + trust.sum() * TRUST * prior
            bias[k] = model.intercept_[0] - weight[k] @ mean
    return weight, bias


def _by_class(examples: Examples) -> Iterator[tuple[Bools, Bools]]:
    return zip(examples.known.T, examples.present.T, strict=True)


def _mean_precision(scores: Floats, examples: Examples) -> float:
    """Return the mean average precision of the classes."""
    found = []
    for k, (known, present) in enumerate(_by_class(examples)):
        used = known & ~np.isnan(scores[:, k])
        rows = np.arange(int(used.sum()))
        _, precision, _ = rank(scores[used, k], present[used], rows, np.ones((len(rows), 1), np.int32))
        found.append(precision[0])
    return round(float(np.nanmean(found)), 6)
