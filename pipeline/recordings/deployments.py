"""Deployments: files of one recorder that follow each other without a break, read as one recording.

A deployment is named after its first file. Its memory continues from file to file, and its scores are those of one
long file. Only files with exact seeking (uncompressed ones and FLAC) and the same rate and number of channels are
joined.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from satpipe.pipeline.recording_warnings import of_file
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.recording import AudioInfo, Part


@dataclass(frozen=True)
class Deployment(Source):
    """Files that are read as one, with their total size and the time of the latest change."""

    info: AudioInfo

    @property
    def fingerprints(self) -> tuple[tuple[str, int, int], ...]:
        """Fingerprints of the files."""
        return tuple(fingerprint(part.source) for part in self.info.parts)


@dataclass
class NotJoined:
    """Files of one recorder that were not joined although their times are close.

    Attributes:
        overlaps: Pairs of files, and their overlap in seconds.
        mismatches: Pairs of files that follow each other but cannot be read as one, and the reason.
    """

    overlaps: list[tuple[str, str, float]] = field(default_factory=list)
    mismatches: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A file that may be part of a deployment; `recorder` is a key that the files of one recorder share."""

    source: Source
    info: AudioInfo
    recorder: str
    time: datetime

    @property
    def end(self) -> datetime:
        """End of the file."""
        return self.time + timedelta(seconds=self.info.duration_s)


def fingerprint(source: Source) -> tuple[str, int, int]:
    """Return the name, size and time stamp of a file, which distinguish it from others and from earlier versions."""
    return source.recording, source.size_bytes, source.modified_us


def join(candidates: Iterable[Candidate], gap_s: float) -> tuple[list[Source], NotJoined]:
    """Join files to deployments.

    Args:
        candidates: Files whose start time is known.
        gap_s: Maximum gap or overlap between a file and the next.

    Returns:
        Deployments and single files, sorted by name; and the files that were not joined.
    """
    recorders: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        recorders[candidate.recorder].append(candidate)
    not_joined, chains = NotJoined(), []
    for files in recorders.values():
        files.sort(key=lambda file: (file.time, file.source.recording))
        chains.append(files[:1])
        for before, after in pairwise(files):
            if _follows(before, after, gap_s, not_joined):
                chains[-1].append(after)
            else:
                chains.append([after])
    joined = (_combined([(file.source, file.info) for file in chain])[0] for chain in chains)
    return sorted(joined, key=lambda source: source.recording), not_joined


def _follows(before: Candidate, after: Candidate, gap_s: float, not_joined: NotJoined) -> bool:
    """Return True if `after` continues `before`; note an overlap or a mismatch."""
    names = before.source.recording, after.source.recording
    apart_s = (after.time - before.end) / timedelta(seconds=1)
    if apart_s < -gap_s:
        not_joined.overlaps.append((*names, -apart_s))
    if abs(apart_s) > gap_s:
        return False
    reason = _mismatch(before.info, after.info)
    if reason:
        not_joined.mismatches.append((*names, reason))
    return not reason


def _mismatch(before: AudioInfo, after: AudioInfo) -> str:
    if before.problem:
        return f"the first one is cut off: {before.problem}"
    if not (before.exact_seek and after.exact_seek):
        return "they cannot be read exactly from the middle"
    if (before.rate_hz, before.channels) != (after.rate_hz, after.channels):
        first, second = (f"{info.rate_hz:,} Hz, {info.channels} channels" for info in (before, after))
        return f"{first} and {second}"
    return ""


def _combined(files: Sequence[tuple[Source, AudioInfo]]) -> tuple[Source, AudioInfo]:
    """Return a deployment of files, or the only file."""
    if len(files) == 1:
        return files[0]
    parts: list[Part] = []
    for source, info in files:
        parts.append(Part(source, info, parts[-1].end if parts else 0))
    first, last = parts[0], parts[-1]
    problem = f"{last.source.recording}: {last.info.problem}" if last.info.problem else ""
    warnings = tuple(of_file(text, part.source.recording) for part in parts for text in part.info.warnings)
    info = replace(
        first.info,
        frames=last.end,
        problem=problem,
        parts=tuple(parts),
        warnings=warnings,
        layouts=(),
        quiet=tuple((part.begin + begin, part.begin + end) for part in parts for begin, end in part.info.quiet),
    )
    size_bytes = sum(part.source.size_bytes for part in parts)
    modified_ns = max(part.source.modified_ns for part in parts)
    return Deployment(first.source.recording, first.source.path, size_bytes, modified_ns, info), info


def split(info: AudioInfo, file: str) -> list[tuple[Source, AudioInfo]]:
    """Split a deployment after a file that cannot be read to its end.

    Returns:
        The files up to that one, and the files after it, if any.
    """
    files = [(part.source, part.info) for part in info.parts]
    after = 1 + [source.recording for source, _ in files].index(file)
    return [_combined(part) for part in (files[:after], files[after:]) if part]


def file_rows(info: AudioInfo) -> list[dict[str, Any]] | None:
    """Return the column `files` of the recordings table; None for a single file."""
    return [
        {
            "file": part.source.recording,
            "start_s": part.begin / info.rate_hz,
            "duration_s": part.info.duration_s,
            "size_bytes": part.source.size_bytes,
            "modified": part.source.modified_us,
            **header_columns(part.info),
        }
        for part in info.parts
    ] or None


def header_columns(info: AudioInfo) -> dict[str, str | None]:
    """Return the columns `header` and `header_time` of the recordings table."""
    kind, time = info.header_time or (None, None)
    return {"header": kind, "header_time": time}
