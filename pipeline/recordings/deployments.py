"""Deployments: files of one recorder, each of which begins where the one before ended, read as one recording.

A deployment is called after its first file. Its memory goes on from file to file, and its scores are those of one long
file. Only files that can be read from the middle are joined (uncompressed ones and FLAC), of the same rate and number
of channels.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from satpipe.pipeline.recordings.decode import AudioInfo, Part
from satpipe.pipeline.recordings.find import Source

GAP_S = 2.0  # names are rounded to the second, and recorders take a moment to change files


@dataclass(frozen=True)
class Deployment(Source):
    """Files that are read as one; size and time stamp are the sum and the latest of theirs.

    Attributes:
        info: What their headers say of them together.
    """

    info: AudioInfo

    @property
    def fingerprints(self) -> tuple[tuple[str, int, int], ...]:
        """What tells it from one of other files, or of files that have changed since."""
        return tuple(fingerprint(part.source) for part in self.info.parts)


@dataclass
class NotJoined:
    """What became of joining.

    Attributes:
        overlaps: Pairs of files, and by how many seconds the second began before the first ended; not joined.
        mismatches: Pairs of files that follow each other, but are not of a kind; not joined, with the reason.
    """

    overlaps: list[tuple[str, str, float]] = field(default_factory=list)
    mismatches: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A file that may be part of a deployment.

    Attributes:
        source: The file.
        info: What its header says.
        recorder: Which recorder it is of.
        time: When it started.
    """

    source: Source
    info: AudioInfo
    recorder: str
    time: datetime

    @property
    def end(self) -> datetime:
        """When it ended."""
        return self.time + timedelta(seconds=self.info.duration_s)


def fingerprint(source: Source) -> tuple[str, int, int]:
    """What tells a file from others, and from itself as it was before."""
    return source.recording, source.size_bytes, source.modified_ns


def join(candidates: Iterable[Candidate], gap_s: float) -> tuple[list[Source], NotJoined]:
    """Join files to deployments.

    Args:
        candidates: Files whose time is known.
        gap_s: By how much a file may begin later or earlier than the one before ended.

    Returns:
        Deployments, and the files that are none with any other, by name; and what was not joined.
    """
    recorders: dict[str, list[Candidate]] = defaultdict(list)
    for each in candidates:
        recorders[each.recorder].append(each)
    not_joined, joined = NotJoined(), []
    for files in recorders.values():
        files.sort(key=lambda each: (each.time, each.source.recording))
        chain = files[:1]
        for before, after in pairwise(files):
            if not _follows(before, after, gap_s, not_joined):
                joined.append(_joined(chain))
                chain = []
            chain.append(after)
        joined.append(_joined(chain))
    return sorted(joined, key=lambda source: source.recording), not_joined


def _follows(before: Candidate, after: Candidate, gap_s: float, not_joined: NotJoined) -> bool:
    """Whether a file is the continuation of another; notes why not, unless there is just a pause."""
    names = before.source.recording, after.source.recording
    apart_s = (after.time - before.end) / timedelta(seconds=1)
    if apart_s < -gap_s:
        not_joined.overlaps.append((*names, -apart_s))
    if abs(apart_s) > gap_s:
        return False
    reason = _unlike(before.info, after.info)
    if reason:
        not_joined.mismatches.append((*names, reason))
    return not reason


def _unlike(before: AudioInfo, after: AudioInfo) -> str:
    if before.problem:
        return f"the first one is cut off: {before.problem}"
    if not (before.exact_seek and after.exact_seek):
        return "they cannot be read exactly from the middle"
    if (before.rate_hz, before.channels) != (after.rate_hz, after.channels):
        first, second = (f"{info.rate_hz:,} Hz, {info.channels} channels" for info in (before, after))
        return f"{first} and {second}"
    return ""


def _joined(chain: list[Candidate]) -> Source:
    parts, begin = [], 0
    for each in chain:
        parts.append(Part(each.source, each.info, begin))
        begin = parts[-1].end
    return _source(parts)


def _source(parts: list[Part]) -> Source:
    """A deployment of files, or the one file."""
    first, last = parts[0], parts[-1]
    if first is last:
        return first.source
    begin = first.begin
    moved = tuple(replace(part, begin=part.begin - begin) for part in parts)
    problem = f"{last.source.recording}: {last.info.problem}" if last.info.problem else ""
    info = replace(first.info, frames=last.end - begin, problem=problem, parts=moved)
    sources = [part.source for part in parts]
    size_bytes = sum(source.size_bytes for source in sources)
    modified_ns = max(source.modified_ns for source in sources)
    return Deployment(first.source.recording, first.source.path, size_bytes, modified_ns, info)


def split(info: AudioInfo, file: str) -> list[tuple[Source, AudioInfo]]:
    """Take a deployment apart behind a file of it that cannot be read to its end.

    Returns:
        The files up to that one, and those behind it, if there are any.
    """
    behind = 1 + next(place for place, part in enumerate(info.parts) if part.source.recording == file)
    pieces = [list(piece) for piece in (info.parts[:behind], info.parts[behind:]) if piece]
    sources = [_source(piece) for piece in pieces]
    return [
        (source, source.info if isinstance(source, Deployment) else piece[0].info)
        for source, piece in zip(sources, pieces, strict=True)
    ]


def file_rows(info: AudioInfo) -> list[dict[str, Any]] | None:
    """The files of a deployment as the recordings table has them; None of a single file."""
    return [
        {
            "file": part.source.recording,
            "start_s": part.begin / info.rate_hz,
            "duration_s": part.info.duration_s,
            "size_bytes": part.source.size_bytes,
            "modified": part.source.modified_ns,
            **header_columns(part.info),
        }
        for part in info.parts
    ] or None


def header_columns(info: AudioInfo) -> dict[str, str | None]:
    """What a header tells of the time, as the recordings table has it."""
    return {
        "header": info.header_time.kind if info.header_time else None,
        "header_time": info.header_time.time if info.header_time else None,
    }
