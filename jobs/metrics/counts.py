"""Counts of each clip and class, their totals over (resampled) clips, and the metrics computed from the totals.

A metric of many bootstrap replicates costs one sparse matrix product: `totals(counts, weights)`, then `class_rates` or
`micro_rates`. The metrics equal those of sed_eval 0.2.1; those named `zero` follow a second rule for classes that were
never detected. Macro means are `arrays.mean` of the metrics of classes, which leaves out NaN:

=============================================  ========  =============  ====================  =====================
the class is                                   f1        zero_f1        error_rate            zero_error_rate
=============================================  ========  =============  ====================  =====================
in the reference, detected, sometimes correct  its F1    its F1         its error rate        its error rate
in the reference, detected, never correct      0         0              its error rate        its error rate
in the reference, never detected               NaN       0              1 (all deletions)     1 (all deletions)
detected, not in the reference                 NaN       NaN            4.5e15 per detection  NaN
neither                                        NaN       NaN            0                     NaN
=============================================  ========  =============  ====================  =====================

In a replicate, the reference is that of its clips. sed_eval adds `EPS` to divisors, hence 4.5e15, which makes its mean
error rate meaningless.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.arrays import Floats, Ints, Rows, ratio
from scipy import sparse  # type: ignore[import-untyped, unused-ignore]

EPS = float(np.spacing(1))  # sed_eval adds it to the denominator of error rates


@dataclass(frozen=True, eq=False)
class Counts:
    """True positives, false positives and false negatives of each clip and class, in segments or in events.

    `clip`, `label`, `tp`, `fp` and `fn` have one entry for each clip and class with a reference or detected event,
    sorted by clip, then class; all other pairs count zero. The other arrays have one entry for each clip.
    """

    classes: int
    """Number of classes, K."""
    clip: Ints
    """Position in the list of clips, [n]."""
    label: Ints
    """Position in the class set, [n]."""
    tp: Rows
    """In the reference and detected, [n]."""
    fp: Rows
    """Detected, not in the reference, [n]."""
    fn: Rows
    """In the reference, not detected, [n]."""
    substitutions: Rows
    """In the reference, with another class detected in its place, over all classes, [clips]."""
    deletions: Rows
    """In the reference, with nothing detected in its place, [clips]."""
    insertions: Rows
    """Detected, with nothing of the reference in its place, [clips]."""
    reference: Rows
    """In the reference, over all classes, [clips]."""

    @property
    def clips(self) -> int:
        """Number of clips, including those without any event."""
        return len(self.reference)


@dataclass(frozen=True, eq=False)
class Totals:
    """Sums of `Counts` over B weighted lists of clips: [B, K] for `tp`, `fp` and `fn`, else [B]."""

    tp: Floats
    fp: Floats
    fn: Floats
    substitutions: Floats
    deletions: Floats
    insertions: Floats
    reference: Floats


@dataclass(frozen=True, eq=False)
class Rates:
    """Metrics of each class, [B, K], or of all classes together, [B]. NaN where a metric is undefined."""

    f1: Floats
    """0 to 1; NaN without a reference or without a detection, zero where both exist and never agree."""
    precision: Floats
    """0 to 1; NaN without a detection."""
    recall: Floats
    """0 to 1; NaN without a reference."""
    error_rate: Floats
    """From 0; without a reference zero if nothing was detected, else the number detected times 4.5e15 (1 / `EPS`)."""
    reference: Floats
    """Number of reference segments or events: the support."""

    @property
    def zero_f1(self) -> Floats:
        """F1 by the zero rule, 0 to 1; NaN without a reference, 0 if never detected."""
        return np.where(self.reference > 0, np.nan_to_num(self.f1, nan=0.0), np.nan)

    @property
    def zero_error_rate(self) -> Floats:
        """Error rate, from 0; NaN without a reference."""
        return np.where(self.reference > 0, self.error_rate, np.nan)


def totals(counts: Counts, weights: npt.NDArray[Any] | None = None) -> Totals:
    """Return the sums over clips.

    Args:
        counts: Of clips and classes.
        weights: How often each clip counts in each of B lists, [B, clips], for example from `bootstrap.resample`;
            None: each clip once (B = 1).

    Raises:
        ValueError: The weights have another shape.
    """
    if weights is None:
        weights = np.ones((1, counts.clips))
    if weights.ndim != 2 or weights.shape[1] != counts.clips:
        raise ValueError(f"weights of shape {weights.shape}, expected (any number, {counts.clips})")
    by_clip = np.ascontiguousarray(weights.T, np.float64)

    def by_class(values: Rows) -> Floats:
        some = np.flatnonzero(values)
        cells = counts.label[some], counts.clip[some]
        matrix = sparse.csr_array((values[some], cells), shape=(counts.classes, counts.clips))
        return np.asarray((matrix @ by_clip).T, np.float64)

    overall = ("substitutions", "deletions", "insertions", "reference")
    return Totals(
        *(by_class(values) for values in (counts.tp, counts.fp, counts.fn)),
        *(np.asarray(getattr(counts, name) @ by_clip, np.float64) for name in overall),
    )


def class_rates(total: Totals) -> Rates:
    """Return the metrics of each class, [B, K]; without substitutions the error rate is (fn + fp) / (tp + fn)."""
    return _rates(total.tp, total.fp, total.fn, (total.fn, total.fp))


def micro_rates(total: Totals) -> Rates:
    """Return the metrics of all classes together, [B]: sed_eval's "overall" results.

    F1, precision and recall are those of the counts summed over classes; the error rate is (S + D + I) / N.
    """
    tp, fp, fn = (values.sum(-1) for values in (total.tp, total.fp, total.fn))
    return _rates(tp, fp, fn, (total.substitutions, total.deletions, total.insertions))


def _rates(tp: Floats, fp: Floats, fn: Floats, errors: tuple[Floats, ...]) -> Rates:
    detected, reference = tp + fp, tp + fn
    return Rates(
        f1=ratio(2 * tp, np.where((detected > 0) & (reference > 0), detected + reference, 0)),
        precision=ratio(tp, detected),
        recall=ratio(tp, reference),
        error_rate=np.sum([kind / (reference + EPS) for kind in errors], axis=0),
        reference=reference,
    )
