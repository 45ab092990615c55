"""The options of `satpipe tag` about start times, applied to files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.messages import some
from satpipe.pipeline.ray_engine import Engine
from satpipe.pipeline.recordings.deployments import Candidate, NotJoined, join
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.probing import Unusable, probe_each
from satpipe.pipeline.start_times.from_csv import read_clock_drifts, read_times
from satpipe.pipeline.start_times.resolver import RecordedFile, StartTimeResolver, find_zone
from satpipe.pipeline.tables.selection import utc
from satpipe.sat.errors import ConfigError
from satpipe.sat.printable import counted


def make_resolver(options: TagOptions) -> StartTimeResolver:
    """Return the resolver of start times.

    Raises:
        ConfigError: The time zone or the pattern is not valid, or a CSV cannot be read; its line is named.
    """
    zone = find_zone(options.time_zone)
    times = read_times(options.times, zone) if options.times else {}
    drifts = read_clock_drifts(options.clock_marks, zone) if options.clock_marks else []
    return StartTimeResolver(options.time_pattern, options.time_zone, times, drifts)


def unmatched(resolver: StartTimeResolver, options: TagOptions, names: Sequence[str]) -> Iterator[str]:
    """Yield the parts of the options that match no file, one line each.

    Raises:
        ConfigError: An option matches no file.
    """
    if options.time_pattern:
        others = [name for name in names if resolver.names.by_pattern(name) is None]
        what = f"--time-pattern {options.time_pattern} does not match"
        if len(others) == len(names):
            raise ConfigError(f"{what} any of {counted(len(names), 'name')}, such as {some(others)}")
        if others:
            yield f"{what} {len(others):,} of {counted(len(names), 'name')}, such as {some(others)}"
    if options.times:
        known = set(names)
        unknown = [(name, true.line) for name, true in resolver.times.items() if name not in known]
        lines = [f"{name} (line {line})" for name, line in unknown]
        if unknown and len(unknown) == len(resolver.times):
            near = get_close_matches(unknown[0][0], names[:20_000], n=1, cutoff=0)
            raise ConfigError(
                f"--times {options.times}: no recording is named {some(lines)}; an existing name is {near[0]}"
            )
        if unknown:
            yield f"--times {options.times}: recordings not found: {len(unknown):,}, such as {some(lines)}"
    for drift in resolver.drifts:
        if not any(fnmatchcase(name, drift.recordings) for name in names):
            raise ConfigError(
                f"--clock-marks {options.clock_marks}: no recording is named {drift.recordings}; "
                f"an existing name is {names[0]}"
            )


@dataclass(frozen=True)
class LeftOut:
    """Files that are not tagged because of --since or --until.

    Attributes:
        others: Number of files that start at another time.
        unknown: Names of files whose start is not known.
    """

    others: int = 0
    unknown: tuple[str, ...] = ()


def check_times(options: TagOptions) -> None:
    """Make sure that --since and --until are times, the one before the other.

    Raises:
        ConfigError: They are not.
    """
    since, until = _range(options)
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--since {options.since} is not before --until {options.until}")


def within(
    engine: Engine, sources: Sequence[Source], resolver: StartTimeResolver, options: TagOptions
) -> tuple[list[Source], LeftOut]:
    """Return the files that start between --since and --until, in the order given, and what is left out.

    `engine` runs the tasks that read headers; it must have no other tasks.
    """
    since, until = _range(options)
    found = {source.recording: info for source, info in probe_each(engine, sources)}
    files = []
    for source in sources:
        info = found[source.recording]
        known = (0.0, None) if isinstance(info, Unusable) else (info.duration_s, info.header_time)
        files.append(RecordedFile(source.recording, *known))
    kept, unknown = [], []
    for source, start in zip(sources, resolver.resolve(files), strict=True):
        if start is None:
            unknown.append(source.recording)
            continue
        time = utc(start.time)
        if (since is None or time >= since) and (until is None or time < until):
            kept.append(source)
    return kept, LeftOut(len(sources) - len(kept) - len(unknown), tuple(unknown))


def _range(options: TagOptions) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    since, until = (None if time is None else utc(time) for time in (options.since, options.until))
    return since, until


def joined(
    engine: Engine, sources: Iterable[Source], resolver: StartTimeResolver, gap_s: float
) -> tuple[list[Source], NotJoined]:
    """Join consecutive files of a recorder to deployments.

    Args:
        engine: Runs the tasks that read headers; must have no other tasks.
        sources: All files of some recorders.
        resolver: Resolves their start times.
        gap_s: See `satpipe.pipeline.recordings.deployments.join`.

    Returns:
        Deployments and single files, sorted by name, and the files that were not joined.
    """
    single, files = [], []
    for source, info in probe_each(engine, sources):
        if isinstance(info, Unusable):
            single.append(source)
        else:
            files.append((source, info))
    times = resolver.resolve(
        [RecordedFile(source.recording, info.duration_s, info.header_time) for source, info in files]
    )
    candidates = []
    for (source, info), each in zip(files, times, strict=True):
        if each is None:
            single.append(source)
        else:
            candidates.append(Candidate(source, info, resolver.names.recorder(source.recording), each.time))
    together, not_joined = join(candidates, gap_s)
    return sorted([*single, *together], key=lambda source: source.recording), not_joined
