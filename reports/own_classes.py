"""Tables of own classes."""

from collections.abc import Sequence

from satpipe.jobs.own_classes.figures import ClassFigures, Interval
from satpipe.reports.tables import Table

_COLUMNS = ("Class", "Examples", "Recordings", "Average precision", "F1", "Threshold", "Confused with")


def table(figures: Sequence[ClassFigures]) -> Table:
    """Return the figures of classes that were learned."""
    return Table(
        "Recognition in recordings that were not used for learning",
        _COLUMNS,
        tuple(map(_row, figures)),
        "In brackets: 95 % intervals. The threshold is the score with the highest F1.",
    )


def _row(each: ClassFigures) -> tuple[str, ...]:
    return (
        each.label,
        f"{each.examples:,}",
        f"{each.recordings:,}",
        _figure(each.average_precision, each.average_precision_interval),
        _figure(each.f1, each.f1_interval),
        _figure(each.threshold, each.threshold_interval),
        f"{each.confused_with} ({each.confused:.0%})" if each.confused_with else "",
    )


def _figure(value: float, limits: Interval) -> str:
    return f"{value:.2f} ({limits[0]:.2f} to {limits[1]:.2f})"
