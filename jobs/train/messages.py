"""Messages of the training commands."""

from typing import Any

from satpipe.jobs.train.prepare import Prepared
from satpipe.sat.model.config import CLASSES
from satpipe.sat.printable import counted

EXAMPLES = 5  # of each kind


def prepared(done: Prepared) -> list[str]:
    """Describe a training set, and the clips missing from it."""
    labels = counted(done.classes, "class", "classes") if done.classes else "without labels"
    lines = [f"{_count(done.clips, 'clip')} in {done.folder}, {labels}"]
    if done.classes:
        lines.append(f"{CLASSES - done.classes} of the model's classes never occur")
    for label, count in list(done.listing.unknown.items())[:EXAMPLES]:
        lines.append(f"label {label!r} is not a class of the model: ignored {count} times")
    if done.listing.missing:
        lines.append(
            f"{_count(len(done.listing.missing), 'clip')} of the table not found: {done.listing.missing[0]} ..."
        )
    if done.listing.unlabelled:
        lines.append(f"{_count(done.listing.unlabelled, 'file')} not in the table: ignored")
    if done.problems:
        lines.append(f"{_count(len(done.problems), 'clip')} cannot be read:")
        lines += [f"  {clip}: {reason}" for clip, reason in list(done.problems.items())[:EXAMPLES]]
    return lines


def metrics(line: dict[str, Any]) -> str:
    """Format one line of a training run's metrics."""
    values = ", ".join(f"{key} {_figure(value)}" for key, value in line.items() if key not in ("epoch", "update"))
    return f"epoch {line['epoch']}, update {line['update']}: {values}"


def _figure(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
