"""The options of `satpipe tag` on time, and the files that they are for."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from satpipe.jobs.options.tag import TagOptions
from satpipe.pipeline.ray_engine import Engine
from satpipe.pipeline.recordings.deployments import Candidate, NotJoined, join
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.probing import Unusable, probe_each
from satpipe.pipeline.start_times.from_csv import read_clock_drifts, read_times
from satpipe.pipeline.start_times.resolver import RecordedFile, StartTimeResolver, find_zone
from satpipe.sat.errors import ConfigError

SHOWN = 3  # names in one line


def make_clock(options: "TagOptions") -> StartTimeResolver:
    """Return what tells when recordings started.

    Raises:
        ConfigError: There is no such time zone, the pattern is none, or a CSV cannot be read; its line is named.
    """
    zone = find_zone(options.time_zone)
    times = read_times(options.times, zone) if options.times else {}
    drifts = read_clock_drifts(options.clock_marks, zone) if options.clock_marks else []
    return StartTimeResolver(options.time_pattern, options.time_zone, times, drifts)


def clock_notes(clock: StartTimeResolver, options: "TagOptions", names: Sequence[str]) -> Iterator[str]:
    """Yield what of the options does not fit the files there are, one line each.

    Raises:
        ConfigError: Of one of the options, nothing fits.
    """
    if options.time_pattern:
        others = [name for name in names if clock.names.by_pattern(name) is None]
        what = f"--time-pattern {options.time_pattern} does not fit"
        if len(others) == len(names):
            raise ConfigError(f"{what} any of {len(names):,} names, such as {some(others)}")
        if others:
            yield f"{what} {len(others):,} of {len(names):,} names, such as {some(others)}"
    if options.times:
        there = set(names)
        unknown = [(name, true.line) for name, true in clock.times.items() if name not in there]
        lines = [f"{name} (line {line})" for name, line in unknown]
        if unknown and len(unknown) == len(clock.times):
            near = get_close_matches(unknown[0][0], names[:20_000], n=1, cutoff=0)
            raise ConfigError(f"--times {options.times}: no recording is called {some(lines)}; one is {near[0]}")
        if unknown:
            yield f"--times {options.times}: {len(unknown):,} are no recordings, such as {some(lines)}"
    for drift in clock.drifts:
        if not any(fnmatchcase(name, drift.recordings) for name in names):
            raise ConfigError(
                f"--clock-marks {options.clock_marks}: no recording is called {drift.recordings}; one is {names[0]}"
            )


def joined(
    engine: Engine, sources: Iterable[Source], clock: StartTimeResolver, gap_s: float
) -> tuple[list[Source], NotJoined]:
    """Join files of one recorder that follow each other to deployments.

    Args:
        engine: Has no other work at the time; reads headers.
        sources: All files of some recorders.
        clock: Tells when they started.
        gap_s: See `satpipe.pipeline.recordings.deployments.join`.

    Returns:
        Deployments and single files, by name, and what was not joined.
    """
    single, files = [], []
    for source, info in probe_each(engine, sources):
        if isinstance(info, Unusable):
            single.append(source)
        else:
            files.append((source, info))
    told = clock.resolve([RecordedFile(source.recording, info.duration_s, info.header_time) for source, info in files])
    candidates = []
    for (source, info), each in zip(files, told, strict=True):
        if each is None:
            single.append(source)
        else:
            candidates.append(Candidate(source, info, clock.names.recorder(source.recording), each.time))
    together, not_joined = join(candidates, gap_s)
    return sorted([*single, *together], key=lambda source: source.recording), not_joined


def some(names: Sequence[str]) -> str:
    """A few of some names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
