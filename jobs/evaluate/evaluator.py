"""Base class of the evaluations against weak and strong labels: matches clips and collects figures."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.curves import Curves
from satpipe.jobs.evaluate.result import EXAMPLES, EvaluationResult
from satpipe.jobs.ground_truth import audioset
from satpipe.jobs.ground_truth.text_file import content, count_and_names
from satpipe.jobs.metrics.arrays import Floats, Ints
from satpipe.jobs.metrics.bootstrap import interval, resample
from satpipe.jobs.options.results import EvaluateOptions
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.chunk_scores import ChunkScores, read_targets
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.targets import choose_targets
from satpipe.sat.errors import TruthError
from satpipe.sat.labels import Label
from satpipe.sat.printable import counted

UNLIMITED = ("error_rate", "d_prime")
"""Ends of the names of figures that are not from 0 to 1."""


class Evaluator:
    """Matches clips with recordings and collects figures."""

    kind = ""

    def __init__(self, tables: Tables, options: EvaluateOptions, result: EvaluationResult, curves: Curves) -> None:
        self.tables, self.options, self.result, self.curves = tables, options, result, curves
        self.model = result["model"]
        tagged = np.flatnonzero(tables.chunks > 0)
        self.recordings = [tables.recordings[row] for row in tagged]
        self.duration_s = tables.duration_s[tagged]
        self.status = [tables.statuses[row] for row in tagged]
        self.weights = np.zeros((0, 0), np.int32)
        self.groups = np.zeros(0, np.int32)
        self.clips: dict[str, Any] = {}
        self.samples: dict[tuple[str, str], Floats] = {}
        self.aliases = ground_truth.read_aliases(options.aliases) if options.aliases else None
        self.in_groups = options.group is not None or options.groups is not None
        if self.in_groups:
            self.aliases = ground_truth.as_aliases(choose_targets(group=options.group, groups=options.groups))
        if options.own is not None:
            self.aliases = ground_truth.of_own_classes(choose_targets(own=options.own, folder=tables.folder))
        self.classes = self.class_set()

    def class_set(self) -> ground_truth.ClassSet:
        """Return the classes that figures are computed for."""
        return ground_truth.class_set(self.options.classes, self.aliases)

    def join(self, path: str | Path, labels: ground_truth.WeakLabels | ground_truth.StrongLabels) -> ground_truth.Match:
        """Find the recordings of the listed clips, and describe the ground truth in the result."""
        listed, unknown = labels.clips, labels.unknown
        mapping = ground_truth.read_mapping(self.options.mapping) if self.options.mapping else None
        published = audioset.is_published(path)
        match = ground_truth.match(listed, self.recordings, mapping, same_name=published)
        if not len(match.clip):
            examples = f" ({self.recordings[0]}, ...)" if self.recordings else ""
            theirs = f"{counted(len(self.recordings), 'recording')} tagged in {self.result['out']}{examples}"
            clips = counted(len(listed), "clip")
            if published:
                raise TruthError(
                    f"of the {theirs}, none is one of the {clips} in {Path(path).name}. {audioset.NAMES[0]}",
                    *audioset.NAMES[1:],
                )
            raise TruthError(
                f"of the {clips} of {path} ({listed[0]}, ...), none is among the {theirs}: use --mapping FILE to "
                "assign them"
            )
        found = [listed[clip] for clip in match.clip]
        self.clips = {"clips_found": len(found), "clips_listed": len(listed)}
        self.result["truth"][self.kind] = {
            "file": audioset.SHIPPED if path == audioset.WEAK else str(path),
            "format": labels.dialect,
            "sha256": _sha256_of(path),
            "listed": len(listed),
            "found": len(found),
            "not_found": len(match.missing),
            "matched_by": match.rules,
            "examples": list(match.missing[:EXAMPLES]),
            "clips_sha256": hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest(),
        }
        if match.unlisted:
            self.note(f"not in the {self.kind} labels and not evaluated: {counted(len(match.unlisted), 'recording')}")
        if unknown:
            often = [f"{label!r} ({count:,})" for label, count in Counter(unknown).most_common()]
            names = count_and_names(often, "name", "names")
            self.note(f"{sum(unknown.values()):,} {self.kind} labels that satpipe does not know were left out, {names}")
            self.result["truth"][self.kind]["unknown"] = unknown
        broken = sum(self.status[recording] != "ok" for recording in match.recording)
        if broken:
            self.note(f"{broken:,} of the evaluated recordings were not tagged from start to end")
        self.groups = self._groups([self.recordings[recording] for recording in match.recording])
        self.clips["groups"] = len(np.unique(self.groups))
        self.weights = resample(len(found), self.options.bootstrap, self.options.seed, self.groups)
        return match

    def _groups(self, recordings: list[str]) -> Ints:
        """Return the group of each recording that the bootstrap draws as one, [n]."""
        by = self.options.bootstrap_by
        if by == "recording":
            return np.arange(len(recordings), dtype=np.int32)
        names = [name.rpartition("/")[0] for name in recordings]
        if by != "folder":
            groups = ground_truth.read_mapping(by, "group")
            without = [name for name in recordings if name not in groups]
            if without:
                raise TruthError(f"{by} has no group of {count_and_names(without, 'recording', 'recordings')}")
            names = [groups[name] for name in recordings]
        return np.unique(names, return_inverse=True)[1].astype(np.int32)

    def read_scores(self, match: ground_truth.Match) -> ChunkScores:
        """Read scores of the classes that have any: clip i of the result is the i-th clip found."""
        wanted = [self.recordings[recording] for recording in match.recording]
        targets = [self.classes.targets[k] for k in self.classes.scored]
        if self.classes.unscored:
            names = count_and_names(self.classes.unscored, "class", "classes")
            self.note(f"the model has no output for {names}: never detected")
        return read_targets(self.tables, wanted, targets)

    def name_others(self, labels: Sequence[Label], label: Ints, what: str) -> None:
        """Name the classes of the ground truth that are not evaluated, in a note and in the result.

        Args:
            labels: Classes of the ground truth.
            label: Of each of its labels: position in `labels`, [n].
            what: Its labels, in words.
        """
        evaluated = set(self.classes.labels)
        numbers = zip(labels, np.bincount(label, minlength=len(labels)).tolist(), strict=True)
        left_out = {each.name: number for each, number in numbers if number and each not in evaluated}
        if left_out:
            self.result["truth"][self.kind]["not_evaluated"] = left_out
            most = [f"{name} ({left_out[name]:,})" for name in sorted(left_out, key=lambda name: -left_out[name])]
            names = count_and_names(most, "class", "classes")
            self.note(f"{sum(left_out.values()):,} {what} are not in the class set {self.classes.name}, of {names}")

    def limits(self, name: str, samples: Floats, mirrored: Any = None) -> dict[str, float | None]:
        """Return the interval of the figure of a class, limited to 0 to 1, as two columns of its row.

        Args:
            name: Of the figure.
            samples: Its values in the bootstrap samples, [B].
            mirrored: The figure itself, to mirror the interval at it.
        """
        low, high = np.clip(interval(samples, self.options.level, mirrored), 0, 1)
        return {f"{name}_low": as_number(low), f"{name}_high": as_number(high)}

    def note(self, text: str) -> None:
        """Add a note for readers of the figures."""
        self.result["notes"].append(text)

    def add(
        self, name: str, average: str, value: Any, samples: Floats | None = None, *, mirrored: bool = False, **how: Any
    ) -> None:
        """Add a figure with its conditions; `samples` are its values in the bootstrap samples."""
        low, high = np.nan, np.nan
        if samples is not None and len(samples) and np.isfinite(float(value)):
            self.samples[name, average] = np.asarray(samples, np.float64)
            low, high = interval(samples, self.options.level, float(value) if mirrored else None)
            if not name.partition("_closed")[0].endswith(UNLIMITED):
                low, high = np.clip([low, high], 0, 1)
        self.result["figures"].append(
            {
                "name": name,
                "average": average,
                "value": as_number(value),
                "low": as_number(low),
                "high": as_number(high),
                **how,
                **self.clips,
                **{
                    key: self.model[key]
                    for key in ("arch", "sha256", "delay_s", "cut", "memory", "grids", "combine", "precision")
                },
                "satpipe": self.result["satpipe"],
            }
        )

    def add_classes(self, rows: list[dict[str, Any]]) -> None:
        """Add columns to the rows of the classes, which begin with `named`; new classes come last."""
        classes = self.result["classes"]
        known = {row["mid"]: row for row in classes}
        for row in rows:
            if row["mid"] in known:
                known[row["mid"]].update(row)
            else:
                classes.append(row)


def named(label: Label) -> dict[str, Any]:
    """Return the first columns of the row of a class."""
    return {"mid": label.mid, "label": label.name}


def as_number(value: Any) -> float | None:
    """Return a number for JSON, which has neither infinity nor NaN: both become None."""
    number = float(value)
    return number if np.isfinite(number) else None


def _sha256_of(path: str | Path) -> str:
    """Return the checksum of a file, or of all files of a folder in the order of their names."""
    place = locate(path)
    files = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
    return hashlib.sha256(b"".join(hashlib.sha256(content(each)).digest() for each in files)).hexdigest()
