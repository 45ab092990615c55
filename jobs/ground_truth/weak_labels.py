"""Weak labels: which classes occur in each clip."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth.aliases import Aliases
from satpipe.jobs.ground_truth.clip_names import renumber
from satpipe.jobs.ground_truth.columns import weak_columns
from satpipe.jobs.ground_truth.dialects import read_table
from satpipe.jobs.ground_truth.vocabulary import Vocabulary, numbered
from satpipe.jobs.metrics.arrays import Ints
from satpipe.jobs.options.results import Unknown
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import TruthError
from satpipe.sat.labels import Label


@dataclass(frozen=True, eq=False)
class WeakLabels:
    """Weak labels of many clips: which classes occur in each."""

    clips: tuple[str, ...]
    """Names of all listed clips, including those without labels; AudioSet's as YTID_START_END in seconds."""
    labels: tuple[Label, ...]
    """Classes that occur."""
    clip: Ints
    """Of each pair of a clip and a class: position in `clips`, [n]."""
    label: Ints
    """Of each pair: position in `labels`, [n]."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Labels left out because satpipe does not know them, with their number of occurrences."""
    dialect: str = ""
    """Of the file, in words."""

    def take(self, clips: npt.NDArray[np.integer]) -> "WeakLabels":
        """Return the clips at the given positions, in that order."""
        kept, numbers = renumber(self.clip, clips, len(self.clips))
        names = tuple(self.clips[clip] for clip in clips)
        return replace(self, clips=names, clip=numbers[kept], label=self.label[kept])


def read_weak(path: str | Path, unknown: Unknown = "error", aliases: Aliases | None = None) -> WeakLabels:
    """Read weak labels.

    The file is one of AudioSet's segment lists, `YTID, start, end, "mid,mid"`, with or without comments and quotes, or
    a table with a header that has a column of clips (recording, filename, ...) and one of labels (mid, label, labels,
    ...), with a row for each clip or for each label; or such columns in a Parquet file. Several labels in a cell are
    separated by commas, `;` or `|`; a comma within a known name separates nothing. A row that a column `correct` or
    `present` denies lists its clip without the label.

    Args:
        path: Path or URL.
        unknown: Treatment of labels that satpipe does not know.
        aliases: Labels of another set; the clips have its targets as classes.

    Raises:
        TruthError: The file cannot be read or has invalid lines; the message lists them.
        LabelError: Labels are unknown to satpipe; the message gives their lines and similar names.
    """
    file = read_table(locate(path))
    vocabulary = Vocabulary(unknown, aliases)
    columns = weak_columns(file, vocabulary.columns)
    clips: dict[str, int] = {}
    seen: dict[str, tuple[int, bool]] = {}  # by clip: its last line; True if more may follow
    pairs: list[tuple[int, Label]] = []
    for number, cells in file.body(columns.header):
        with file.line(number):
            name = columns.clip_name(cells)
            labels = vocabulary.several(columns.label_cell(cells))
            if not columns.answer(cells):
                labels = []
            several = columns.header and not columns.timed and len(labels) <= 1
            if name in seen and not (several and seen[name][1]):
                raise TruthError(f"clip {name} is already in line {seen[name][0]}")
            seen[name] = (number, several)
            clip = clips.setdefault(name, len(clips))
            for label in labels:
                file.once((clip, label), f"{label.name!r} of clip {name}")
                pairs.append((clip, label))
    file.check()
    if not clips:
        raise TruthError(f"{file.path} lists no clips")
    distinct, numbers = numbered(label for _, label in pairs)
    clip_of = np.array([clip for clip, _ in pairs], np.int32)
    return WeakLabels(tuple(clips), distinct, clip_of, numbers, dict(vocabulary.unknown), columns.dialect)
