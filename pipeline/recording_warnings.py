"""Warnings: what is odd about a recording but does not stop it, in the column `warnings` of the recordings table.

A warning is a text: its kind, and details after a colon. Warnings are counted by kind.
"""

from collections import Counter
from collections.abc import Iterable

KINDS = {
    "size corrected": "the header states fewer samples than the file holds; all of them are tagged",
}


def warning(kind: str, details: str) -> str:
    """Return a warning of one of the `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"{kind} is not one of the kinds of warnings")
    return f"{kind}: {details}"


def of_file(text: str, file: str) -> str:
    """Return a warning about one file of a deployment."""
    kind, _, details = text.partition(": ")
    return f"{kind}: {file}: {details}"


def count(warnings: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return the number of recordings that have a warning of each kind, given the warnings of each recording."""
    kinds = Counter(kind for texts in warnings for kind in {text.partition(": ")[0] for text in texts})
    return dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))
