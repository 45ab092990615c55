"""Warnings: what is odd about a recording but does not stop it, in the column `warnings` of the recordings table.

A warning is a text: its kind, and details after a colon. Warnings are counted by kind.
"""

from collections import Counter
from collections.abc import Iterable

OFFSET_GUESSED = "offset guessed"
KINDS = {
    "size corrected": "the header states another length than the samples in the file have; all of them are tagged",
    "quiet stretches": "a triggered recording of an AudioMoth: what the recorder left out has no rows",
    "channels cancel": "the channels have opposite phase: their mean is silence; `--channels 1` tags one of them",
    "dead channel": "one of the channels has no sound",
    "beyond full scale": "float samples reach more than 10 times full scale; scores mean little",
    "zeros": "all samples are zero for more than a minute",
    OFFSET_GUESSED: (
        "a number after the time in the name is taken as the offset from UTC, but might be a count; "
        "`--time-pattern` without it treats the time as local"
    ),
    "chained streams": "several streams follow each other in the file; all of them are tagged",
    "bytes skipped": "bytes between the frames of the sound, which belong to no tag, are left out",
}


def warning(kind: str, details: str) -> str:
    """Return a warning of one of the `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"{kind} is not one of the kinds of warnings")
    return f"{kind}: {details}"


def kind_of(text: str) -> str:
    """Return the kind of a warning."""
    return text.partition(": ")[0]


def of_file(text: str, file: str) -> str:
    """Return a warning about one file of a deployment."""
    kind, _, details = text.partition(": ")
    return f"{kind}: {file}: {details}"


def count(warnings: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return the number of recordings that have a warning of each kind, given the warnings of each recording."""
    kinds = Counter(kind for texts in warnings for kind in set(map(kind_of, texts)))
    return dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))
