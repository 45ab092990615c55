"""Base class of the evaluations against weak and strong labels: matches clips and collects figures."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.curves import Curves
from satpipe.jobs.evaluate.result import EXAMPLES, EvaluationResult
from satpipe.jobs.ground_truth import audioset
from satpipe.jobs.ground_truth.text_file import content
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.bootstrap import interval, resample
from satpipe.jobs.options.results import EvaluateOptions
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.chunk_scores import ChunkScores, read_chunks
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.sat.errors import TruthError
from satpipe.sat.labels import Label


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
        self.clips: dict[str, Any] = {}

    def join(self, path: str | Path, listed: tuple[str, ...], unknown: dict[str, int]) -> ground_truth.Match:
        """Find the recordings of the listed clips, and describe the ground truth in the result."""
        mapping = ground_truth.read_mapping(self.options.mapping) if self.options.mapping else None
        published = audioset.is_published(path)
        match = ground_truth.match(listed, self.recordings, mapping, same_name=published)
        if not len(match.clip):
            theirs = f" ({self.recordings[0]}, ...)" if self.recordings else ""
            if published:
                raise TruthError(
                    f"none of the {len(self.recordings):,} recordings tagged in {self.result['out']}{theirs} is one of "
                    f"the {len(listed):,} clips in {Path(path).name}. {audioset.NAMES}"
                )
            raise TruthError(
                f"none of the {len(listed):,} clips of {path} ({listed[0]}, ...) is among the {len(self.recordings):,} "
                f"recordings tagged in {self.result['out']}{theirs}: use --mapping FILE to assign them"
            )
        found = [listed[clip] for clip in match.clip]
        self.clips = {"clips_found": len(found), "clips_listed": len(listed)}
        self.result["truth"][self.kind] = {
            "file": audioset.SHIPPED if path == audioset.WEAK else str(path),
            "sha256": _sha256_of(path),
            "listed": len(listed),
            "found": len(found),
            "not_found": len(match.missing),
            "matched_by": match.rules,
            "examples": list(match.missing[:EXAMPLES]),
            "clips_sha256": hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest(),
        }
        if match.unlisted:
            self.note(f"{len(match.unlisted):,} recordings are not in the {self.kind} labels and were not evaluated")
        if unknown:
            self.note(f"{sum(unknown.values()):,} {self.kind} labels that satpipe does not know were left out")
        broken = sum(self.status[recording] != "ok" for recording in match.recording)
        if broken:
            self.note(f"{broken:,} of the evaluated recordings were not tagged from start to end")
        self.weights = resample(len(found), self.options.bootstrap, self.options.seed)
        return match

    def read_scores(self, match: ground_truth.Match, columns: list[int]) -> ChunkScores:
        """Read the scores of the matched recordings: clip i of the result is the i-th clip found."""
        return read_chunks(self.tables, [self.recordings[recording] for recording in match.recording], columns)

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
        if samples is not None and len(samples):
            low, high = interval(samples, self.options.level, float(value) if mirrored else None)
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
