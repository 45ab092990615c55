"""Counts for each clip and class, their totals under a resampling of clips, and the figures that follow from totals.

A figure of many resamples is one sparse matrix product away: `totals(counts, weights)`, then any function here. They
are sed_eval's figures (equal to those of its own objects on the same totals), and the zero rule's beside them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Floats, Ints
from scipy import sparse  # type: ignore[import-untyped, unused-ignore]

Numbers = npt.NDArray[np.int64]

EPS = float(np.spacing(1))  # sed_eval adds it to the denominator of error rates


@dataclass(frozen=True, eq=False)
class Counts:
    """True positives, false positives and false negatives of clips and classes, in segments or in events.

    One entry of `clip`, `label`, `tp`, `fp` and `fn` for each clip and class that meet, by clip, then class; all other
    pairs of a clip and a class count zero. The rest has one entry for each clip, in the clips' order.
    """

    labels: int
    """Number of classes, K."""
    clip: Ints
    """Position in the list of clips, [n]."""
    label: Ints
    """Position in the class set, [n]."""
    tp: Numbers
    """True and found, [n]."""
    fp: Numbers
    """Found and not true, [n]."""
    fn: Numbers
    """True and not found, [n]."""
    substitutions: Numbers
    """True ones with another class found in their place, over all classes, [clips]."""
    deletions: Numbers
    """True ones with nothing found in their place, [clips]."""
    insertions: Numbers
    """Found ones with nothing true in their place, [clips]."""
    reference: Numbers
    """True ones, over all classes, [clips]."""
    segments: Numbers
    """Segments evaluated, [clips]: true negatives are what is left of them. Zeros where events were counted."""
    length_s: Floats
    """Length evaluated, [clips]. sed_eval reports its sum; no figure depends on it."""

    @property
    def clips(self) -> int:
        """Number of clips, those without any event among them."""
        return len(self.reference)


@dataclass(frozen=True, eq=False)
class Totals:
    """Sums of counts over B weighted lists of clips."""

    tp: Floats
    """[B, K]."""
    fp: Floats
    """[B, K]."""
    fn: Floats
    """[B, K]."""
    substitutions: Floats
    """[B]."""
    deletions: Floats
    """[B]."""
    insertions: Floats
    """[B]."""
    reference: Floats
    """[B]."""


@dataclass(frozen=True, eq=False)
class Rates:
    """Figures of classes, [B, K], or of all classes together, [B]. Not a number: there is no such figure."""

    f1: Floats
    """Not a number where nothing is true or nothing was found; zero where both were and they never agree."""
    precision: Floats
    """Not a number where nothing was found."""
    recall: Floats
    """Not a number where nothing is true."""
    error_rate: Floats
    """Where nothing is true: zero if nothing was found either, else the number found times 4.5e15 (1 / `EPS`)."""
    reference: Floats
    """Number of true ones (segments or events): the support."""


def totals(counts: Counts, weights: npt.NDArray[Any] | None = None) -> Totals:
    """Return the sums over clips.

    Args:
        counts: Of clips and classes.
        weights: How often each clip counts in each of B lists, [B, clips], such as a bootstrap draws; each clip once
            (B = 1) if None.
    """
    if weights is None:
        weights = np.ones((1, counts.clips))
    if weights.ndim != 2 or weights.shape[1] != counts.clips:
        raise ValueError(f"weights of shape {weights.shape}, expected (any number, {counts.clips})")
    by_clip = np.ascontiguousarray(weights.T, np.float64)

    def by_class(values: Numbers) -> Floats:
        some = np.flatnonzero(values)
        places = counts.label[some], counts.clip[some]
        matrix = sparse.csr_array((values[some], places), shape=(counts.labels, counts.clips))
        return np.asarray((matrix @ by_clip).T, np.float64)

    def overall(values: Numbers) -> Floats:
        return np.asarray(values @ by_clip, np.float64)

    return Totals(
        tp=by_class(counts.tp),
        fp=by_class(counts.fp),
        fn=by_class(counts.fn),
        substitutions=overall(counts.substitutions),
        deletions=overall(counts.deletions),
        insertions=overall(counts.insertions),
        reference=overall(counts.reference),
    )


def class_rates(total: Totals) -> Rates:
    """Return the figures of each class, [B, K].

    The error rate of a class is its deletions (false negatives) and insertions (false positives) over its true ones;
    one class alone has no substitutions.
    """
    return _rates(total.tp, total.fp, total.fn, (total.fn, total.fp))


def micro_rates(total: Totals) -> Rates:
    """Return the figures of all classes together, sed_eval's "overall" ones, [B].

    F1, precision and recall are those of counts summed over classes. The error rate is (S + D + I) / N.
    """
    tp, fp, fn = (values.sum(-1) for values in (total.tp, total.fp, total.fn))
    return _rates(tp, fp, fn, (total.substitutions, total.deletions, total.insertions))


def macro_f1(total: Totals) -> Floats:
    """Return the mean F1 over classes by sed_eval's rule, [B]: classes whose F1 is not a number are left out.

    * True, found and sometimes right: counts.
    * True and found, never right: counts as 0.
    * True, never found: left out.
    * Found, never true: left out.
    * Neither: left out.

    Not a number if no class is left. The number of classes averaged is that of the `class_rates(total).f1` that are
    numbers; it depends on what was found.
    """
    f1 = class_rates(total).f1
    return _mean(f1, ~np.isnan(f1))


def macro_zero_f1(total: Totals) -> Floats:
    """Return the mean F1 over classes by the zero rule, [B]: the mean over all classes with truth.

    * True, found and sometimes right: counts.
    * True and found, never right: counts as 0.
    * True, never found: counts as 0.
    * Found, never true: left out.
    * Neither: left out.

    Truth is that of the clips that the totals are of: a class may have some in one resample and none in another. Not
    a number if there is no truth. The classes averaged are those where `class_rates(total).reference` is not zero.
    """
    f1 = zero_f1(total)
    return _mean(f1, ~np.isnan(f1))


def zero_f1(total: Totals) -> Floats:
    """Return the F1 of each class by the zero rule, [B, K]: not a number without truth, 0 if never found."""
    rates = class_rates(total)
    return np.where(rates.reference > 0, np.nan_to_num(rates.f1, nan=0.0), np.nan)


def macro_error_rate(total: Totals) -> Floats:
    """Return the mean error rate over classes by sed_eval's rule, [B]: no class is left out, as none is not a number.

    * True, never found: counts as 1, all its events or segments are deletions.
    * Found, never true: counts as the number found times 4.5e15 (sed_eval divides by `EPS`), which makes the mean
      meaningless.
    * Neither: counts as 0, which makes the mean lower the more such classes the class set has.
    """
    rate = class_rates(total).error_rate
    return _mean(rate, np.ones(rate.shape, bool))


def macro_zero_error_rate(total: Totals) -> Floats:
    """Return the mean error rate over the classes with truth, those that `macro_zero_f1` averages over, [B].

    * True, never found: counts as 1, all its events or segments are deletions.
    * Found, never true: left out.
    * Neither: left out.
    """
    rates = class_rates(total)
    return _mean(rates.error_rate, rates.reference > 0)


def _rates(tp: Floats, fp: Floats, fn: Floats, errors: tuple[Floats, ...]) -> Rates:
    found, reference = tp + fp, tp + fn
    return Rates(
        f1=_ratio(2 * tp, np.where((found > 0) & (reference > 0), found + reference, 0)),
        precision=_ratio(tp, found),
        recall=_ratio(tp, reference),
        error_rate=np.sum([kind / (reference + EPS) for kind in errors], axis=0),
        reference=reference,
    )


def _ratio(part: Floats, whole: npt.NDArray[Any]) -> Floats:
    """Return the quotient, not a number where the divisor is zero."""
    out = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: Floats, counted: npt.NDArray[np.bool_]) -> Floats:
    """Return the mean over the last axis of the values that count, not a number where none does."""
    return _ratio(np.where(counted, values, 0).sum(-1), counted.sum(-1))
