"""The options of `satpipe tag` about start times, applied to files."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.messages import some
from satpipe.pipeline.ray_engine import Engine
from satpipe.pipeline.recordings.deployments import Candidate, NotJoined, join
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.probing import Unusable, probe_each
from satpipe.pipeline.start_times.from_csv import read_clock_drifts, read_times
from satpipe.pipeline.start_times.resolver import RecordedFile, StartTimeResolver, find_zone
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
