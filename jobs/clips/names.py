"""Names of clips, which sort by class and falling score, and which every file system allows."""

import re
from collections.abc import Sequence
from unicodedata import normalize

MAX_LETTERS = 48  # of a label


def names(labels: Sequence[str], scores: Sequence[float | None]) -> list[str]:
    """Return a name for each clip, such as `bird_001_0.93`; the clips are sorted by label and falling score.

    Labels of which no letter remains are numbered.
    """
    stems: dict[str, str] = {}
    for label in labels:
        if label not in stems:
            stem = _plain(label) or "class"
            number = sum(re.fullmatch(rf"{stem}(-\d+)?", other) is not None for other in stems.values())
            stems[label] = f"{stem}-{number + 1}" if number else stem
    digits = max(3, len(str(len(labels))))
    place: dict[str, int] = {}
    found = []
    for label, score in zip(labels, scores, strict=True):
        place[label] = place.get(label, 0) + 1
        found.append(f"{stems[label]}_{place[label]:0{digits}}" + ("" if score is None else f"_{score:.2f}"))
    return found


def _plain(label: str) -> str:
    """Return a label in lower-case letters of ASCII, digits and hyphens."""
    letters = normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:MAX_LETTERS].rstrip("-")
