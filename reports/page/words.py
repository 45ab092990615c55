"""The texts of the page that do not depend on its filter."""

from typing import Any

import numpy as np
from satpipe.jobs.report_data import ReportData
from satpipe.jobs.report_data.moments import NEIGHBOURS
from satpipe.pipeline.recordings.for_browsers import MAX_GAIN
from satpipe.pipeline.tables.schemas import STATUSES
from satpipe.reports.tables import Table
from satpipe.sat.model.config import grids_text

LABELS = (
    "Total time in which each label's score reaches the threshold. Select a label to show only that label. Classes "
    "of the same kind of sound are folded into a group, whose score is their highest."
)


def title(found: ReportData) -> str:
    """Return the page's title."""
    return f"Sounds in {found.out.rstrip('/').rpartition('/')[2] or found.out}"


def lead(found: ReportData) -> str:
    """Return a summary in one line."""
    when = "start time unknown"
    if found.span:
        when = f"{_time(found.span[0])} to {_time(found.span[1])} ({found.time_zone})"
    return f"{_recordings(found.recordings)}, {when}, tagged with {found.model['arch']}."


def zone(found: ReportData) -> str:
    """Return a sentence about the time zone and where it comes from; "" without times."""
    if not found.span:
        return ""
    if found.zone_source == "none":
        return (
            "Times are in UTC: satpipe tag was given no --time-zone, so times in names and headers without a time zone "
            "were taken as UTC."
        )
    source = "satpipe tag" if found.zone_source == "run" else "satpipe report"
    return f"Times are in the time zone {found.time_zone}, the --time-zone of {source}."


def figures(found: ReportData) -> list[tuple[str, str]]:
    """Return the names and values of the figures at the top."""
    at = found.levels.index(found.threshold)
    folders = {total.group for total in found.labels}
    reached = sum(total.duration_s[at] > 0 for place, total in enumerate(found.labels) if place not in folders)
    whole = found.statuses.get("ok", 0)
    return [
        ("length", _length(found.duration_s)),
        ("recordings", f"{found.recordings:,}"),
        ("not fully tagged", f"{found.recordings - whole:,}"),
        (f"labels that reach {found.threshold:g}", f"{reached:,}"),
    ]


def when(found: ReportData) -> str:
    """Return the description of the maps."""
    grid = found.grid
    if grid.kind == "clock":
        what = (
            f"Share of the recorded time in which a label is found, by date and time of day ({found.time_zone}). "
            "Hatched cells have no recording; cells in the colour of 0 were recorded, but the label was not found. If "
            "the recorded time varies, the first map shows it."
        )
        if grid.grouped > 1:
            what += f" Each column covers {grid.grouped} dates with recordings."
        elif any(np.diff(np.array(grid.columns, "datetime64[D]")) > np.timedelta64(1, "D")):
            what += " Dates without recordings are left out."
    else:
        what = "Share of time in which a label is found, by recording and time within it, since no start time is known."
        if grid.grouped > 1:
            what += f" Each row covers {grid.grouped} recordings, sorted by name."
    if len(found.shares) < len(found.labels):
        what += f" {len(found.shares)} of {len(found.labels)} labels and groups have maps, the most common ones."
    return what


def listen(found: ReportData) -> str:
    """Return the description of the moments."""
    return (
        f"Chunks with a higher score than the {NEIGHBOURS} chunks before and the {NEIGHBOURS} after, "
        "with some of the sound around them. Excerpts are 16 kHz mono, as the model receives the sound; quiet ones "
        f"are amplified, at most {MAX_GAIN:g} times."
    )


def recordings(found: ReportData) -> str:
    """Return the description of the recordings shown one by one."""
    what = "The highest score in each part of a recording, if it reaches the threshold."
    if len(found.details) < found.tagged:
        what += (
            f" {len(found.details)} of {found.tagged:,} recordings are shown, evenly spread by name; choose others "
            "with `satpipe report --recordings`."
        )
    return what


def problems(found: ReportData) -> Table | None:
    """Return a table of the recordings that were not tagged from start to end; None if there are none."""
    bad = found.recordings - found.statuses.get("ok", 0)
    if not bad:
        return None
    rows = tuple(
        (each.recording, f"{each.status}: {STATUSES.get(each.status, '')}", each.reason) for each in found.problems
    )
    counts = ", ".join(f"{count:,} {status}" for status, count in found.statuses.items() if status != "ok")
    more = f"{bad - len(rows):,} more are in the recordings table." if bad > len(rows) else ""
    head = f"Not tagged from start to end: {counts}"
    return Table(head, ("recording", "status", "reason"), rows, more, text_columns=3)


def warnings(found: ReportData) -> Table | None:
    """Return a table of the recordings with warnings; None if there are none."""
    if not found.warnings:
        return None
    rows = tuple((each.recording, "; ".join(each.warnings)) for each in found.warned)
    head = f"Warnings: {', '.join(f'{count:,} {kind}' for kind, count in found.warnings.items())}"
    return Table(head, ("recording", "warnings"), rows, f"The first {len(rows)}; all are in the recordings table.", 2)


def made(found: ReportData) -> list[tuple[str, str]]:
    """Return names and values of the model, options and versions behind the tables."""
    run, model = found.run, found.model
    identity, versions = run["identity"], run.get("versions", {})
    values: dict[str, Any] = {
        "Folder": found.out,
        "Inputs": ", ".join(run.get("inputs", [])),
        "Model": f"{model['arch']}, {model['source'] or 'source unknown'}, sha256 {model['sha256'][:12]}",
        "Inference": (
            f"chunks of {model['chunk_s']:g} s, {model['cut']}, memory {model['memory']}, "
            f"delay {model['delay_s']:g} s"
            f"{grids_text(model['grids'], model['combine'])}, {model['precision']}"
        ),
        "Channels": identity.get("channels", ""),
        "Tags table": ", ".join(f"{key} {identity[key]}" for key in ("threshold", "top_k") if key in identity),
        "Tagged": " to ".join(run[key] for key in ("started", "finished") if key in run),
        "Command": " ".join(run.get("command", [])),
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "Time zone": zone(found),
    }
    return [(term, str(value)) for term, value in values.items() if value]


def _recordings(number: int) -> str:
    return f"{number:,} recording{'' if number == 1 else 's'}"


def _time(time: np.datetime64) -> str:
    return f"{time.item():%-d %B %Y %H:%M}"


def _length(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.{1 if seconds < 360_000 else 0}f} h"
