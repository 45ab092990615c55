"""Look-up of the mids and names in label files."""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
from satpipe.jobs.ground_truth.aliases import Aliases, unknown_label
from satpipe.jobs.ground_truth.columns import LABEL, NAMES_FIRST
from satpipe.jobs.ground_truth.text_file import NO_VALUE
from satpipe.jobs.metrics.arrays import Ints
from satpipe.jobs.options.results import Unknown
from satpipe.sat.errors import LabelError
from satpipe.sat.labels import Label, find, separated


class Vocabulary:
    """Looks labels up and remembers them.

    Attributes:
        unknown: Labels left out, with their number of occurrences.
        columns: Names of columns of labels, the first match counts.
    """

    def __init__(self, unknown: Unknown = "error", aliases: Aliases | None = None) -> None:
        self.unknown: Counter[str] = Counter()
        self._aliases = aliases
        self.columns = LABEL if aliases is None else NAMES_FIRST
        self._skip = unknown == "skip"
        self._known: dict[str, Label | str] = {}  # the class, or the reason why none was found

    def one(self, text: str) -> Label:
        """Return the class of a mid or a name.

        Raises:
            LabelError: No class has this mid or name.
        """
        if text not in self._known:
            self._known[text] = self._look_up(text)
        found = self._known[text]
        if isinstance(found, str):
            raise LabelError(found)
        return found

    def maybe(self, text: str) -> Label | None:
        """Return the class of a mid or a name; count an unknown one and return None if they are to be skipped.

        Raises:
            LabelError: No class has this mid or name.
        """
        try:
            return self.one(text)
        except LabelError:
            if not self._skip or not text:
                raise
            self.unknown[text] += 1
            return None

    def several(self, text: str) -> list[Label]:
        """Return the classes in a cell of weak labels, without repetitions.

        They are separated by `;`, `|` or commas; a comma within a known name separates nothing.

        Raises:
            LabelError: A label is unknown.
        """
        if text in NO_VALUE:
            return []
        labels = map(self.maybe, separated(re.split(r"[;|]", text), self._target))
        return list(dict.fromkeys(label for label in labels if label))

    def _target(self, text: str) -> Label | None:
        return self._aliases.get(text) if self._aliases else None

    def _look_up(self, text: str) -> Label | str:
        """Return the target of the aliases or the class with this name, or the reason why none was found."""
        if not text:
            return "the label is missing"
        if target := self._target(text):
            return target
        if text.isdecimal():
            return f"{text} is a number: a label must be a mid or a name"
        if text.startswith("/") and "," in text:
            return f"{text} must be one label, not several"
        try:
            return find(text)
        except LabelError as error:
            return str(unknown_label(text, self._aliases) if self._aliases else error)


class OpenVocabulary(Vocabulary):
    """Knows every name: a label of any text is a class of its own, whose mid is the text after a prefix."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.columns = NAMES_FIRST
        self._prefix = prefix

    def _look_up(self, text: str) -> Label | str:
        return Label(self._prefix + text, text, None) if text else "the label is missing"


def numbered(labels: Iterable[Label]) -> tuple[tuple[Label, ...], Ints]:
    """Return the distinct labels sorted by mid, and the position of each given label among them."""
    given = list(labels)
    distinct = sorted(set(given), key=lambda label: label.mid)
    at = {label: place for place, label in enumerate(distinct)}
    return tuple(distinct), np.array([at[label] for label in given], np.int32)
