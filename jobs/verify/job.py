"""Precision of classes, and thresholds for a precision, from a verification sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs.ground_truth.sheet import TOP, JudgedClip, read_sheet
from satpipe.jobs.options.results import VerifyOptions
from satpipe.jobs.verify.precision import Estimate, estimate
from satpipe.jobs.verify.threshold import threshold_for
from satpipe.pipeline.tables.targets import read_groups
from satpipe.sat.errors import TruthError
from satpipe.sat.groups import PREFIX, find_group
from satpipe.sat.labels import weak_labels

STEPS = 1000  # of thresholds, rounded down, so that the event with this score reaches it


@dataclass(frozen=True)
class Verified:
    """What the answers say about a class."""

    label: str
    mid: str
    sample: str
    """`top`, `stratified`, or `all` if every event was judged."""
    clips: int
    """Number of rows."""
    yes: int
    no: int
    unsure: int
    found: Estimate | None
    """Of all events of the class, or for `top` of the clips alone; None without an answer."""
    covered: float
    """Share of the events in strata with an answer, to which the estimate applies."""
    threshold: float | None = None
    """For the precision wanted; None if there is none, or the sample cannot give one."""
    above: Estimate | None = None
    """Of the events that reach the threshold."""
    lowest: bool = False
    """True if all scores in the sheet reach the precision, so that a lower threshold might, too."""

    @property
    def unanswered(self) -> int:
        """Number of rows without an answer."""
        return self.clips - self.yes - self.no - self.unsure


@dataclass(frozen=True)
class Verification:
    """The figures of a sheet."""

    sheet: str
    precision: float
    level: float
    classes: tuple[Verified, ...]
    model_sha256: str | None
    """None if the sheet does not name one model."""


def verification(sheet: str | Path, options: VerifyOptions) -> Verification:
    """Compute the figures of a sheet.

    Raises:
        TruthError: The sheet cannot be read, is not one of `satpipe clips`, has invalid lines, or no answer.
    """
    rows = read_sheet(sheet)
    if not any(row.correct for row in rows):
        raise TruthError(f"{sheet} has no answers yet: write yes, no or unsure in the column correct")

    def key(row: JudgedClip) -> tuple[str, str]:
        return row.label, row.mid

    some = [list(clips) for _, clips in groupby(sorted(rows, key=key), key)]
    models = {row.model_sha256 for row in rows}
    return Verification(
        str(sheet),
        options.precision,
        options.level,
        tuple(_verified(clips, options) for clips in some),
        models.pop() or None if len(models) == 1 else None,
    )


def _verified(clips: Sequence[JudgedClip], options: VerifyOptions) -> Verified:
    """Return the figures of a class."""
    drawn = [clip for clip in clips if clip.probability]
    top = not drawn
    clips = clips if top else drawn
    strata = sorted({(clip.stratum, clip.probability) for clip in clips}, key=str)
    stratum = np.array([strata.index((clip.stratum, clip.probability)) for clip in clips])
    chance = np.array([clip.probability or 1.0 for clip in clips])
    answers = np.array([clip.correct for clip in clips])
    judged = np.isin(answers, ("yes", "no"))
    events = np.bincount(stratum, 1 / chance)
    answered = np.bincount(stratum, judged)
    yes, no, unsure = (int((answers == answer).sum()) for answer in ("yes", "no", "unsure"))
    sample = TOP if top else "all" if (chance == 1).all() else "stratified"
    first = clips[0]
    verified = Verified(first.label, first.mid, sample, len(clips), yes, no, unsure, found=None, covered=0.0)
    if not judged.any():
        return verified
    covered = float(events[answered > 0].sum() / events.sum())
    correct, here = answers[judged] == "yes", stratum[judged]
    weight = events[here] / answered[here]
    found = estimate(correct, here, weight, options.level)
    verified = replace(verified, found=found, covered=covered)
    score = np.array([np.nan if clip.score is None else clip.score for clip in clips], np.float64)
    if top or np.isnan(score).any():
        return verified
    chosen = threshold_for(score[judged], correct, here, weight, options.precision, options.level)
    if chosen is None:
        return verified
    value, above = chosen
    lowest = value <= score[judged].min()
    value = score.min() if lowest else value
    rounded = max(1, math.floor(value * STEPS + 1e-9)) / STEPS
    return replace(verified, threshold=rounded, above=above, lowest=lowest)


def thresholds_file(found: Verification, options: VerifyOptions) -> dict[str, Any]:
    """Return the content of a file of thresholds, see `satpipe.jobs.ground_truth.thresholds`.

    Raises:
        TruthError: No class has a threshold.
        LabelError: A group is unknown: `--groups` must name its file.
        ConfigError: The file of groups cannot be read.
    """
    own = {} if options.groups is None else read_groups(options.groups)
    with_one = [each for each in found.classes if each.threshold is not None and each.mid]
    if not with_one:
        raise TruthError(
            f"{found.sheet} gives no threshold for a precision of {found.precision:g}, for any class or group that "
            "satpipe knows"
        )
    groups = {}
    for each in with_one:
        if each.mid.startswith(PREFIX):
            columns = find_group(each.mid.removeprefix(PREFIX), own).columns
            mids = [weak_labels()[column].mid for column in columns]
            groups[each.label] = {"classes": mids, "threshold": each.threshold}
    source = {
        "how": "verified",
        "precision": found.precision,
        "level": found.level,
        "sheet": found.sheet,
        "classes": {
            each.mid: {"clips": each.above.clips, "precision": _rounded(each.above)} for each in with_one if each.above
        },
        "satpipe": version("satpipe"),
    }
    own_values = {each.mid: each.threshold for each in with_one if not each.mid.startswith(PREFIX)}
    return {"thresholds": own_values, "groups": groups, "model_sha256": found.model_sha256, "source": source}


def _rounded(found: Estimate) -> list[float]:
    """Return an estimate and its interval."""
    return [round(value, 3) for value in (found.precision, found.low, found.high)]
