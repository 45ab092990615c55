"""The texts that `satpipe tag` and `satpipe status` print."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from satpipe.jobs.tag.status import EXAMPLES, Status, Warnings
from satpipe.pipeline.start_times.resolver import SOURCES
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.files import REPAIR
from satpipe.pipeline.tagging.progress import length
from satpipe.sat.model.config import BUNDLED_SOURCE, grids_text
from satpipe.sat.printable import counted

if TYPE_CHECKING:
    from satpipe.jobs.tag.job import Summary
    from satpipe.jobs.tag.plan import Plan

NAMES = 3  # in one line
IDLE_S = 60.0  # without progress, before a line says so
KINDS = 8  # of files that are not read, in one line


def plan(plan: "Plan", out: str | Path, *, prune: bool) -> list[str]:
    """Describe what a run will do."""
    checkpoint = plan.checkpoint
    config = checkpoint.config
    memory = "memory" if config.streaming else "no memory"
    lines = [
        f"tables go to {locate(out)}",
        f"model: {config.name}, {config.script_chunk_s:g} s delay, {memory}"
        f"{grids_text(config.grids, config.combine)}, {checkpoint.source} "
        f"(sha256 {checkpoint.sha256[:12]})",
    ]
    if checkpoint.source == BUNDLED_SOURCE:
        lines.append(
            "       The published weights are better: `satpipe models` lists them, `satpipe models pull` fetches one."
        )
    lines.append(
        f"found: {counted(plan.files, 'recording')}; to tag: {plan.remaining:,} ({plan.remaining_bytes / 1e6:,.1f} MB)"
    )
    if plan.outdated:
        lines.append(f"       {counted(len(plan.outdated), 'recording')} changed or failed before: tagged again")
    if plan.damage.problems:
        shown = [problem.removesuffix(f": {REPAIR}") for problem in plan.damage.problems[:EXAMPLES]]
        lines += [f"damaged: {problem}" for problem in shown] + (
            ["         ..."] if plan.damage.problems[EXAMPLES:] else []
        )
        lines.append(f"       {counted(len(plan.damage.affected), 'recording')} in damaged tables: tagged again")
    if len(plan.lacking):
        lacking_s = length(pc.sum(plan.lacking["duration_s"]).as_py() or 0.0)
        lines.append(f"       {counted(len(plan.lacking), 'recording')} ({lacking_s}) without embeddings: tagged again")
    if plan.without_files:
        then = "rows removed" if prune else "rows kept, --prune removes them"
        lines.append(f"       {counted(len(plan.without_files), 'recording')} in the tables without a file: {then}")
    lines += _not_read(plan.search.not_read)
    lines += [f"cannot be read: {problem}" for problem in plan.search.problems]
    lines += [f"note: {note}" for note in plan.notes]
    return lines


def summary(summary: "Summary", out: str | Path) -> list[str]:
    """Describe what a run has done."""
    lines = []
    if summary.tagged_s:
        speed = summary.tagged_s / summary.elapsed_s
        took = timedelta(seconds=round(summary.elapsed_s))
        lines.append(f"tagged {length(summary.tagged_s)} in {took} ({speed:.0f} x realtime)")
    lines.append(f"{out} contains {counted(summary.recordings, 'recording')}, {length(summary.duration_s)}")
    problems = sum(summary.statuses.values()) - summary.statuses.get("ok", 0)
    if problems:
        kinds = ", ".join(f"{number} {status}" for status, number in summary.statuses.items() if status != "ok")
        lines.append(
            f"  {counted(problems, 'recording')} with a problem ({kinds}); status and reason are in the table:"
        )
        lines += [f"    {recording}: {reason}" for recording, reason in summary.examples.items()]
        lines += [f"    ... {_all_problems(out)}"] if problems > len(summary.examples) else []
    lines += [f"  {line}" for line in _not_read(summary.not_read)]
    lines += [f"  not searched: {problem}" for problem in summary.problems]
    lines += _left_out(summary)
    lines += _warnings(summary.warnings, out)
    return lines + _joined(summary) + _times(summary)


def _left_out(summary: "Summary") -> list[str]:
    """Describe what was not tagged because of --since or --until."""
    others, unknown = summary.left_out.others, summary.left_out.unknown
    lines = [f"  left out, of another time: {counted(others, 'recording')}"] if others else []
    return lines + ([f"  left out, start time not known: {len(unknown):,}, such as {some(unknown)}"] if unknown else [])


def _not_read(kinds: Mapping[str, int]) -> list[str]:
    """Describe the files with an extension that satpipe does not read."""
    if not kinds:
        return []
    each = [f"{number:,} {extension or 'without extension'}" for extension, number in kinds.items()]
    more = f" and {len(each) - KINDS} more kinds" if len(each) > KINDS else ""
    return [f"not read, perhaps sound in other formats: {', '.join(each[:KINDS])}{more}"]


def _all_problems(out: str | Path) -> str:
    return f"all of them: satpipe status {shlex.quote(str(out))} --problems"


def _warnings(warnings: Warnings, out: str | Path) -> list[str]:
    """Describe what is odd about recordings but did not stop them: the kinds, and some recordings."""
    if not warnings.kinds:
        return []
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in warnings.kinds.items())
    return [
        f"recordings with warnings: {kinds}; all texts are in the column warnings of the table, such as:",
        *(f"  {recording}: {texts}" for recording, texts in warnings.examples.items()),
        *([f"  ... {_all_problems(out)}"] if warnings.recordings > len(warnings.examples) else []),
    ]


def _joined(summary: "Summary") -> list[str]:
    """Describe the files that were joined, and those that were not."""
    if summary.files is None:
        return []
    files, deployments = summary.files
    lines = [f"joined: {counted(files, 'file')} to {counted(deployments, 'deployment')}"]
    overlaps = [f"{first} and {second} ({s:,.1f} s)" for first, second, s in summary.not_joined.overlaps]
    if overlaps:
        lines.append(f"  not joined because they overlap: {len(overlaps):,}, such as {some(overlaps)}")
    mismatches = [f"{first} and {second} ({reason})" for first, second, reason in summary.not_joined.mismatches]
    if mismatches:
        lines.append(f"  not joined although consecutive: {len(mismatches):,}, such as {some(mismatches)}")
    return lines


def _times(summary: "Summary") -> list[str]:
    """Describe the start times that are known, and the rules that were applied."""
    known, ambiguities = summary.times, summary.times.ambiguities
    lines = [f"start time known for {_sources(known.sources, summary.recordings)}"]
    for names, what in (
        (known.unknown, "start time not known from name or header"),
        (ambiguities.without_zone, "no time zone given: treated as UTC; --time-zone sets another"),
        (
            ambiguities.repeated_hour,
            f"in the repeated hour of {summary.zone}: treated as the earliest time that follows the previous file",
        ),
        (
            ambiguities.skipped_hour,
            f"in the skipped hour of {summary.zone}: treated as if the clock had not been changed",
        ),
        (ambiguities.implausible_rates, "end_time not used: the clock would be wrong by more than 1%"),
    ):
        if names:
            lines.append(f"  {what}: {len(names):,}, such as {some(names)}")
    return lines


def _sources(counts: Mapping[str, int], total: int) -> str:
    sources = ", ".join(f"{counts[source]:,} from {source}" for source in SOURCES if counts.get(source))
    return f"{sum(counts.values()):,} of {counted(total, 'recording')}{f' ({sources})' if sources else ''}"


def status(status: Status, out: str | Path) -> list[str]:
    """Describe the state of an output folder."""
    run, total = status.run, sum(status.recordings.values())
    lines = [f"{_state(status)}, started {run.get('started', '?')}"]
    arch, source = run.get("identity", {}).get("arch", "?"), run.get("model", {}).get("source", "?")
    lines.append(f"model: {arch}, {source}")
    lines += _progress(status)
    lines.append(f"in the tables: {counted(total, 'recording')}, {length(status.duration_s)}")
    lines.append(f"start time known for {_sources(status.times, total)}")
    if status.staged:
        lines.append(f"tagged but not in the tables yet: {counted(status.staged, 'task')}")
    if status.log:
        lines.append(f"log: {status.log}")
    problems = total - status.recordings.get("ok", 0)
    if problems:
        lines.append(f"{counted(problems, 'recording')} with a problem:")
        lines += [f"  {recording}: {reason}" for recording, reason in status.problems.items()]
        lines += [f"  ... {_all_problems(out)}"] if problems > len(status.problems) else []
    lines += _warnings(status.warnings, out)
    return lines


def _state(status: Status) -> str:
    """Describe how the last run ended, or that it goes on."""
    beat = status.beat
    on = f" on {beat.host}" if beat else ""
    match status.state:
        case "running":
            idle = f", no progress for {_time(status.age_s)}" if status.age_s and status.age_s > IDLE_S else ""
            return f"running{on}{idle}"
        case "finished":
            return f"finished {status.run.get('finished', '?')}"
        case "failed":
            return f"failed{on}: {beat.error if beat else '?'}; the same command continues"
        case "died":
            return f"died{on}, last seen {beat.written if beat else '?'}; the same command continues"
        case "stopped":
            return "stopped; the same command continues"
    return "not finished; the same command continues"


def _progress(status: Status) -> list[str]:
    """Describe the progress of a run that has not finished, and the folders that it could not search."""
    beat = status.beat
    if beat is None:
        return []
    lines = [f"not searched: {problem}" for problem in beat.not_searched]
    figures = beat.figures
    if status.state == "finished" or not figures.get("files"):
        return lines
    done, found = length(figures["done_s"], figures["found_s"]), length(figures["found_s"])
    headers = f"headers of {figures['files_probed']:,} of {counted(figures['files'], 'file')} read"
    parts = [headers, f"{done.rpartition(' ')[0]} of {found} tagged"]
    if figures["left_s"] is not None:
        parts.append(f"{figures['x_realtime']:.0f} x realtime")
        parts += [f"{_time(figures['left_s'])} left"] if status.state == "running" else []
    return [f"progress: {', '.join(parts)}", *lines]


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def check(problems: Sequence[str], out: str | Path) -> list[str]:
    """Describe what is wrong with the tables of an output folder."""
    return [*problems, counted(len(problems), "problem")] if problems else [f"{out} is undamaged"]


def some(names: Sequence[str]) -> str:
    """Return a few of the names, for a message."""
    return ", ".join(names[:NAMES]) + (", ..." if len(names) > NAMES else "")
