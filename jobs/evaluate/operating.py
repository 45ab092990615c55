"""The thresholds and median filters at which events are detected: given, read from a file, or chosen."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.tuning import DEFAULT, tuned
from satpipe.jobs.ground_truth import ClassSet
from satpipe.jobs.metrics import sed
from satpipe.jobs.metrics.arrays import Bools, Floats, Ints
from satpipe.jobs.metrics.median import filtered_by_class, median_filtered
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.sat.errors import ConfigError, TruthError
from satpipe.sat.printable import counted

if TYPE_CHECKING:
    from satpipe.jobs.evaluate.strong_figures import StrongEvaluator

ALL = "all"
"""Value of `tune`: choose thresholds on all clips, and evaluate them too."""


@dataclass(frozen=True, eq=False)
class Operating:
    """Thresholds, filters, and the clips that figures are computed from."""

    thresholds: float | Floats
    """One, or one for each class [K]."""
    filters: Ints
    """Length of the median filter over the scores of each class, in chunks, [K]."""
    scored: Ints
    """Positions of the classes that have scores, [S]."""
    kept: Bools
    """Clips that are evaluated, [clips]."""
    how: dict[str, Any]
    """Conditions of the figures."""

    def filtered(self, chunks: ChunkScores) -> npt.NDArray[np.float16]:
        """Return the scores [n, S] after the median filters."""
        return filtered_by_class(chunks.clip, chunks.scores, self.filters[self.scored])

    def of_scored(self, classes: ClassSet) -> float | Floats:
        """Return the threshold, or those of the classes that have scores."""
        return self.thresholds if isinstance(self.thresholds, float) else self.thresholds[classes.scored]

    def columns(self) -> Iterator[dict[str, float]]:
        """Yield what differs between classes, as columns of their rows."""
        if isinstance(self.thresholds, float):
            return
        for threshold, length in zip(self.thresholds.tolist(), self.filters.tolist(), strict=True):
            yield {"threshold": threshold, **({"median_filter": length} if self.filters.max() > 1 else {})}


def choose(evaluator: "StrongEvaluator") -> Operating:
    """Return the thresholds that the options ask for.

    Raises:
        ConfigError: A threshold is not allowed, or the file's median filters contradict the options.
        TruthError: A file cannot be read, or leaves no clips to choose on or to evaluate.
        LabelError: A file has labels that satpipe does not know.
    """
    options, classes = evaluator.options, evaluator.classes
    number, clips = len(classes.labels), len(evaluator.duration_s)
    filters = np.full(number, options.median_filter, np.int32)
    if options.tune:
        return _tuned(evaluator, options.tune, filters)
    kept = np.ones(clips, bool)
    if classes.own and options.threshold is None:
        values = np.array([DEFAULT if each.threshold is None else each.threshold for each in classes.own])
        how = {"threshold": _digest(values), "threshold_source": f"per class, own/{classes.name}"}
        return Operating(values, filters, classes.scored, kept, how | _filter(filters))
    given = DEFAULT if options.threshold is None else options.threshold
    try:
        value = float(given)
    except ValueError:
        file = ground_truth.read_thresholds(str(given))
        values = file.of(classes.targets)
        if file.filters:
            if options.median_filter > 1:
                raise ConfigError(f"--median-filter contradicts the median filters of {given}") from None
            filters = file.filters_of(classes.targets)
        for note in file.notes(evaluator.model["sha256"], classes.targets):
            evaluator.note(note)
        how = {"threshold": _digest(values), "threshold_source": f"per class, {Path(str(given)).name}"}
        return Operating(values, filters, classes.scored, kept, how | _filter(filters))
    if not 0 <= value <= 1:
        raise ConfigError(f"--threshold must be a number from 0 to 1 or a file, not {given}")
    return Operating(
        value, filters, classes.scored, kept, {"threshold": value, "threshold_source": "fixed"} | _filter(filters)
    )


def _tuned(evaluator: "StrongEvaluator", split: str | Path, filters: Ints) -> Operating:
    """Choose a threshold for each class on the listed clips, and keep the other clips for the figures."""
    options, classes, clips = evaluator.options, evaluator.classes, evaluator.known.clips
    chosen_on = np.full(len(clips), split == ALL)
    if split != ALL:
        chosen_on[ground_truth.match(clips, ground_truth.read_list(split)).clip] = True
        if not chosen_on.any() or chosen_on.all():
            none_or_all = "all" if chosen_on.any() else "none"
            raise TruthError(
                f"{split} lists {none_or_all} of the clips found: some are needed to choose thresholds, others for the "
                f"figures; --tune {ALL} chooses on all clips"
            )
    chunks, durations_s = evaluator.chunks, evaluator.duration_s[chosen_on]
    if options.median_filter > 1:
        chunks = replace(chunks, scores=median_filtered(chunks.clip, chunks.scores, options.median_filter))
    rows = chosen_on[chunks.clip]
    new = (np.cumsum(chosen_on) - 1).astype(np.int32)

    def of_split(events: Events) -> Events:
        kept = events.take(chosen_on[events.clip])
        return replace(kept, clip=new[kept.clip])

    columns = {name: getattr(chunks, name)[rows] for name in ("chunk", "start_s", "end_s", "scores")}
    chosen = tuned(
        replace(chunks, clip=new[chunks.clip[rows]], **columns),
        classes,
        of_split(evaluator.everything),
        None if evaluator.all_judged is None else of_split(evaluator.all_judged),
        _counter(evaluator, durations_s),
        options.filters,
        options.min_s,
    )
    lengths = chosen.filters if options.filters != (1,) else filters
    name = "all clips" if split == ALL else Path(split).name
    evaluator.result["thresholds"] = _file(evaluator, chosen.thresholds, lengths, chosen.known, int(chosen_on.sum()))
    source = f"per class, best {options.tune_for.replace('-f1', '-F1')} on {name}"
    how = {"threshold": _digest(chosen.thresholds), "threshold_source": source} | _filter(lengths)
    kept = np.ones(len(clips), bool) if split == ALL else ~chosen_on
    evaluator.note(
        f"thresholds were chosen on {counted(chosen_on.sum(), 'clip')}; "
        + ("the figures are of the same clips, hence too high" if split == ALL
           else f"the figures are of the other {kept.sum():,}")
    )  # fmt: skip
    return Operating(chosen.thresholds, lengths, classes.scored, kept, how)


def _counter(evaluator: "StrongEvaluator", durations_s: Floats) -> Any:
    """Return the function that counts for the figure to maximise."""
    options = evaluator.options
    size: dict[str, Any] = {"clips": len(durations_s), "classes": len(evaluator.labels)}
    match options.tune_for:
        case "segment-f1":
            return partial(sed.count_segments, segment_s=evaluator.segment_s, **size)
        case "event-f1":
            return partial(sed.count_events, collar_s=options.collar_s, offset_fraction=options.offset_fraction, **size)
    return evaluator.intersections(durations_s)[1]


def _file(evaluator: "StrongEvaluator", thresholds: Floats, filters: Ints, known: Bools, clips: int) -> dict[str, Any]:
    """Return the content of the file of thresholds, see `satpipe.jobs.ground_truth.thresholds`."""
    own: dict[str, float] = {}
    groups: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    for k in np.flatnonzero(known).tolist():
        label, members, value = evaluator.labels[k], evaluator.classes.members[k], float(thresholds[k])
        if members == (label,):
            own[label.mid] = value
        else:
            groups[label.mid] = {"classes": [each.mid for each in members], "threshold": value}
        if filters[k] > 1:
            lengths[label.mid] = int(filters[k])
    truth = evaluator.result["truth"]["strong"]
    source = {
        "how": "tuned",
        "measure": evaluator.options.tune_for,
        "out": evaluator.result["out"],
        "truth": truth["file"],
        "truth_sha256": truth["sha256"],
        "clips": clips,
        "satpipe": evaluator.result["satpipe"],
    }
    return {
        "default": DEFAULT, "thresholds": own, "groups": groups, "median_filter": lengths,
        "model_sha256": evaluator.model["sha256"], "source": source,
    }  # fmt: skip


def _filter(filters: Ints) -> dict[str, Any]:
    """Return the condition on the median filter: a length in chunks, or a checksum if classes differ."""
    lengths = np.unique(filters)
    return {"median_filter": int(lengths[0]) if len(lengths) == 1 else _digest(filters)}


def _digest(values: npt.NDArray[Any]) -> str:
    """Return a checksum that identifies a set of thresholds."""
    return f"sha256 {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
