"""Matching of clips with recordings, by a list or by their names."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from satpipe.jobs.ground_truth.clip_names import Name, parse_name, parse_segment
from satpipe.jobs.ground_truth.columns import CLIP, Columns
from satpipe.jobs.ground_truth.text_file import TextFile, cell_at, count_and_names, indented, is_number, unquoted
from satpipe.jobs.metrics.arrays import Ints
from satpipe.pipeline.storage import locate
from satpipe.sat.errors import TruthError


@dataclass(frozen=True, eq=False)
class Match:
    """The recording of each clip; see `match`."""

    clip: Ints
    """Positions of the clips found in the list of clips, ascending, [n]."""
    recording: Ints
    """Position of each clip's recording in the list of recordings, [n]."""
    missing: tuple[str, ...]
    """Clips without a recording."""
    unlisted: tuple[str, ...]
    """Recordings without a clip."""
    rules: dict[str, int]
    """Number of clips found by each rule: mapping, name, YouTube id and start, YouTube id."""


def read_mapping(path: str | Path, of: str = "clip") -> dict[str, str]:
    """Read the clip (or another value) of each recording: a table with the columns recording and clip.

    Raises:
        TruthError: The table cannot be read, or has invalid lines; the message lists them.
    """
    file = TextFile(locate(path))
    recording, value = file.column(["recording"]), file.column([of])
    if recording is None or value is None:
        raise TruthError(f"{file.path} must have a header with the columns recording and {of}")
    mapping: dict[str, str] = {}
    for number, cells in file.body():
        with file.line(number):
            name, text = cell_at(cells, recording), cell_at(cells, value)
            if not name or not text:
                raise TruthError(f"the recording or the {of} is missing")
            file.once(name, f"recording {name}")
            mapping[name] = text
    file.check()
    if not mapping:
        raise TruthError(f"{file.path} lists no recording")
    return mapping


def read_list(path: str | Path) -> tuple[str, ...]:
    """Read names of clips or recordings, without repetitions.

    The file has a name in each line, or is a table with a header and a column of clips (clip, recording, filename,
    ...), or a segment list like AudioSet's.

    Raises:
        TruthError: The file cannot be read, or lists nothing.
    """
    file = TextFile(locate(path))
    first = file.rows[0][1] if file.rows else []
    column = file.column(CLIP)
    names = []
    if column is not None or (len(first) > 2 and is_number(first[1]) and is_number(first[2])):
        columns = Columns(0, 2, 1, 2) if column is None else Columns(column, column, header=True)
        for number, cells in file.body(columns.header):
            with file.line(number):
                names.append(columns.clip_name(cells))
        file.check()
    else:
        names = [unquoted(line.strip()) for _, line in file.lines]
    names = [name for name in dict.fromkeys(names) if name]
    if not names:
        raise TruthError(f"{file.path} lists no clip")
    return tuple(names)


def match(
    clips: Sequence[str],
    recordings: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    *,
    same_name: bool = False,
) -> Match:
    """Find the recording of each clip.

    First by name, in this order: the same path; the same except for the audio extension; one path is the end of the
    other (`site1/dawn` of `data/site1/dawn.wav`); the same name in other folders, if no other clip or recording has it.

    Then by AudioSet's naming conventions: YTID, a YouTube id of 11 characters, or YYTID, followed by nothing, by
    _START_END in seconds (30.000_40.000, 30_40) or milliseconds (30000_40000), or by _START in milliseconds or whole
    seconds. Clip and recording must start at the same millisecond; if one of the names has no start, the id decides,
    provided that there is only one candidate.

    Args:
        clips: Names as in the ground truth, without repetitions.
        recordings: Names as in the recordings table, without repetitions.
        mapping: Clips of recordings whose names do not determine them; it overrides names.
        same_name: Treat recordings with the same name in several folders as copies, of which the first is used.

    Raises:
        TruthError: A clip could be several recordings, or a recording several clips; the message lists them. Or the
            mapping contains none of the clips and recordings.
    """
    matcher = _Matcher(clips, recordings, same_name)
    mapped = {place: mapping[name] for place, name in enumerate(recordings) if name in mapping} if mapping else {}
    matcher.find(mapped, "mapping")
    if mapping and not matcher.found:
        raise TruthError("the mapping has no recording of the tables together with a listed clip")
    matcher.find({place: name for place, name in enumerate(recordings) if place not in mapped})
    return matcher.result()


_Candidates = Iterable[tuple[int, int, list[int]]]
"""A clip, the distance of its name, and its candidate recordings."""


class _Matcher:
    """Matches clips and recordings by position."""

    def __init__(self, clips: Sequence[str], recordings: Sequence[str], same_name: bool) -> None:
        self._clips, self._recordings, self._same_name = clips, recordings, same_name
        self._names = [parse_name(clip) for clip in clips]
        self.found: dict[int, int] = {}  # clip: recording
        self._taken: set[int] = set()
        self._rules: Counter[str] = Counter()
        self._wrong: list[str] = []

    def find(self, names: Mapping[int, str], rule: str = "name") -> None:
        """Find the clips of recordings with these names, by position; `rule` is counted for those found by name.

        Raises:
            TruthError: A match is ambiguous.
        """
        parsed = {place: parse_name(name) for place, name in names.items()}
        self._settle(self._near_by_name(parsed), (rule,))
        stems = {place: name.stem for place, name in parsed.items() if place not in self._taken}
        self._settle(self._near_by_segment(stems), ("YouTube id and start", "YouTube id"))
        if self._wrong:
            count = len(self._wrong)
            raise TruthError(
                f"{count} name{'s are' if count > 1 else ' is'} ambiguous:",
                *indented(self._wrong),
                "Use --mapping with a file that has the columns recording and clip",
            )

    def _near_by_name(self, names: Mapping[int, Name]) -> _Candidates:
        exact: dict[Name, list[int]] = defaultdict(list)
        whole: dict[tuple[str, ...], list[int]] = defaultdict(list)
        ending: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, name in names.items():
            exact[name].append(place)
            whole[name.parts].append(place)
            for end in name.ends():
                ending[end].append(place)
        listed = Counter(name.stem for name in self._names)
        for clip, name in self._unmatched():
            parts = name.parts
            ways = (exact.get(name), whole.get(parts), ending.get(parts), *(whole.get(end) for end in name.ends()))
            distance, near = next(((n, places) for n, places in enumerate(ways) if places), (len(ways), []))
            if not near:
                elsewhere = ending.get((name.stem,), [])
                near = elsewhere if len(elsewhere) == listed[name.stem] == 1 else []
            yield clip, min(distance, 2), near

    def _near_by_segment(self, stems: Mapping[int, str]) -> _Candidates:
        at: dict[tuple[str, int], list[int]] = defaultdict(list)
        of: dict[str, list[int]] = defaultdict(list)
        whole: dict[str, list[int]] = defaultdict(list)
        for place, stem in stems.items():
            if segment := parse_segment(stem):
                of[segment.ytid].append(place)
                for start_ms in segment.starts_ms:
                    at[segment.ytid, start_ms].append(place)
                if not segment.starts_ms:
                    whole[segment.ytid].append(place)
        for clip, name in self._unmatched() if of else ():
            if (segment := parse_segment(name.stem)) and segment.ytid in of:
                ytid, starts_ms = segment
                started = [place for start_ms in starts_ms for place in at.get((ytid, start_ms), ())]
                near = list(dict.fromkeys(started)) or whole.get(ytid, []) or ([] if starts_ms else of[ytid])
                yield clip, 0 if started else 1, near

    def _unmatched(self) -> Iterator[tuple[int, Name]]:
        return ((clip, name) for clip, name in enumerate(self._names) if clip not in self.found)

    def _settle(self, candidates: _Candidates, rules: Sequence[str]) -> None:
        """Match clips and recordings; if several clips claim one recording, the nearest name wins.

        Args:
            candidates: Candidate recordings of clips.
            rules: Names of the rules by distance; the last is for all greater distances.
        """
        claims: dict[int, list[tuple[int, int]]] = defaultdict(list)  # recording: (distance, clip)
        for clip, distance, near in candidates:
            if self._same_name and len({parse_name(self._recordings[place]).last for place in near}) == 1:
                near = [min(near, key=lambda place: self._recordings[place])]
            if len(near) > 1:
                names = count_and_names([self._recordings[place] for place in near], "recording", "recordings")
                self._wrong.append(f"clip {self._clips[clip]} could be any of {names}")
            elif near:
                claims[near[0]].append((distance, clip))
        for recording, claimed in claims.items():
            nearest = min(claimed)[0]
            clips = [clip for distance, clip in claimed if distance == nearest]
            if len(clips) > 1:
                names = count_and_names([self._clips[clip] for clip in clips], "clip", "clips")
                self._wrong.append(f"recording {self._recordings[recording]} could be any of {names}")
            else:
                self.found[clips[0]] = recording
                self._rules[rules[min(nearest, len(rules) - 1)]] += 1
                self._taken.add(recording)

    def result(self) -> Match:
        """Return all matches."""
        clips = sorted(self.found)
        return Match(
            np.array(clips, np.int32),
            np.array([self.found[clip] for clip in clips], np.int32),
            tuple(name for clip, name in enumerate(self._clips) if clip not in self.found),
            tuple(name for place, name in enumerate(self._recordings) if place not in self._taken),
            dict(self._rules),
        )
