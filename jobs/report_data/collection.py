"""Collect the data of a report from an output folder."""

from collections import Counter as Tally
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.jobs.options.results import ReportOptions
from satpipe.jobs.report_data.contents import NOT_TAGGED, SHARE_STEPS, Detail, LabelTotal, Problem, ReportData, Warned
from satpipe.jobs.report_data.count import Counter
from satpipe.jobs.report_data.excerpts import with_sound
from satpipe.jobs.report_data.folding import fold, groups_of, with_groups
from satpipe.jobs.report_data.grid import ends_s, grid, local_time
from satpipe.jobs.report_data.moments import choose as choose_moments
from satpipe.pipeline.recording_warnings import count as count_warnings
from satpipe.pipeline.start_times.resolver import find_zone
from satpipe.pipeline.tables.open_folder import Ints, Part, Tables
from satpipe.pipeline.tables.targets import Target

LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # plus the threshold itself
# These limits keep the page under 15 MB whatever the folder contains; `tests/jobs/test_report_data.py` adds them up.
MAX_LABELS = 48  # with maps and moments
MAX_DETAILS = 100  # recordings shown one by one
MAX_CURVES = 16  # labels of each such recording
MAX_MOMENTS = 2  # of each label and kind
MAX_PROBLEMS = 50


def collect(out: str | Path, options: ReportOptions) -> ReportData:
    """Collect the data of a folder's report.

    Raises:
        OutputError: `out` is not an output folder, a file is damaged, or a recording is unknown.
        LabelError: A class or group is unknown.
        ConfigError: The time zone or a time is not valid, or the file of groups cannot be read.
    """
    selection = options.selection
    asked = options.time_zone and find_zone(options.time_zone)
    tables = Tables(out, scores=False)
    targets = with_groups(selection.targets(tables.folder))
    clock, notes = asked or tables.zone, (*tables.notes, *tables.check_scores(), *selection.notes(tables))
    part = selection.part(tables)
    recordings = part.recordings
    tagged = recordings[(tables.chunks[recordings] > 0) & (part.end > part.begin)]
    shown = tagged[np.linspace(0, len(tagged) - 1, min(len(tagged), MAX_DETAILS)).round().astype(np.int64)]
    levels = np.unique([*LEVELS, options.threshold])
    cells = grid(tables, clock, part)
    counter = Counter(tables, targets, cells, levels, shown)
    counter.count(part)
    order, group = _order(counter, targets, levels, options.threshold)
    nearest_first = sorted(levels.tolist(), key=lambda level: abs(level - options.threshold))
    peaks = (counter.certain, counter.near)
    moments = choose_moments(tables, clock, *peaks, order[:MAX_LABELS], nearest_first, MAX_MOMENTS)
    warnings = tables.table["warnings"].take(pa.array(recordings)).to_pylist()
    statuses = Tally(tables.statuses[row] for row in recordings.tolist())
    shape = (len(cells.rows), len(cells.columns))
    whole = (part.begin == 0) & (part.end == tables.slots[recordings])
    inside_s = ends_s(tables, part) - part.begin * tables.model["chunk_s"]
    return ReportData(
        out=str(out),
        run=tables.run,
        model=tables.model,
        threshold=options.threshold,
        time_zone=str(clock),
        zone_source="option" if asked else "run" if tables.zone_given else "none",
        recordings=len(recordings),
        duration_s=float(np.nansum(np.where(whole, tables.duration_s[recordings], inside_s))),
        statuses=dict(sorted(statuses.items(), key=lambda pair: (-pair[1], pair[0]))),
        problems=_problems(tables, recordings),
        warnings=count_warnings(warnings),
        warned=_warned(tables, recordings, warnings),
        span=_span(tables, clock, part),
        levels=tuple(levels.tolist()),
        labels=tuple(
            LabelTotal(targets[k], tuple(counter.duration_s[k].tolist()), float(counter.peak[k]), group.get(k))
            for k in order.tolist()
        ),
        grid=cells,
        chunks=counter.chunks[:-1].reshape(shape),
        shares=_shares(counter, order[:MAX_LABELS], shape),
        details=tuple(_detail(tables, clock, row, counter.curves[row], order, len(group)) for row in shown.tolist()),
        tagged=len(tagged),
        moments=tuple(with_sound(tables, moments) if options.audio else moments),
        notes=(*notes, *_unknown(tables, tagged)),
    )


def _order(
    counter: Counter, targets: Sequence[Target], levels: npt.NDArray[np.float64], threshold: float
) -> tuple[npt.NDArray[np.intp], dict[int, int]]:
    """Return the positions of the targets that are shown, as `ReportData.labels` orders them.

    Also returns the place in that order of the group that a class is folded into, by position of the class.
    """
    at = int(np.searchsorted(levels, threshold))
    duration_s = counter.duration_s.round(3)  # classes of equal length stay in the order of the model's outputs
    found = set(np.flatnonzero(counter.duration_s[:, 0] > 0).tolist())
    folded = fold(targets, found)
    unused = set(groups_of(targets)) - set(folded.values())
    # Lower levels determine the order of classes that never reach the threshold.
    keys = [-duration_s[:, level] for level in (*range(len(levels) - 1, at, -1), *range(at + 1))]
    keys.append(np.isin(np.arange(len(targets)), list(folded)).astype(np.float64))
    order = [place for place in np.lexsort(keys).tolist() if place in found - unused]
    rank = {place: number for number, place in enumerate(order)}
    return np.array(order, np.intp), {place: rank[group] for place, group in folded.items()}


def _shares(counter: Counter, order: npt.NDArray[np.intp], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return `ReportData.shares`; a very small share is not rounded to 0."""
    reached = counter.reached[order, :, :-1].reshape(len(order), counter.reached.shape[1], *shape)
    chunks = np.maximum(counter.chunks[:-1], 1).reshape(shape)
    steps = np.rint(np.sqrt(reached / chunks) * SHARE_STEPS)
    return np.asarray(np.where(reached > 0, np.maximum(steps, 1), 0).astype(np.uint8))


def _detail(
    tables: Tables, clock: ZoneInfo, row: int, curves: npt.NDArray[np.uint8], order: npt.NDArray[np.intp], folded: int
) -> Detail:
    """Return a recording's curves; those of the last `folded` labels, which are shown in groups, come last."""
    curves, tagged = curves[order], curves[order] != NOT_TAGGED
    highest = np.max(curves, axis=1, where=tagged, initial=0)
    total = np.sum(curves, axis=1, where=tagged)
    place = np.arange(len(order))
    keys = (place, -total.astype(np.int64), -highest.astype(np.int64), place >= len(order) - folded)
    labels = np.lexsort(keys)[:MAX_CURVES]
    labels = labels[highest[labels] > 0]
    return Detail(
        tables.recordings[row],
        tables.statuses[row],
        float(tables.duration_s[row]),
        local_time(tables, clock, [row], 0)[0],
        tuple(labels.tolist()),
        curves[labels],
    )


def _problems(tables: Tables, recordings: Ints) -> tuple[Problem, ...]:
    bad = [row for row in recordings.tolist() if tables.statuses[row] != "ok"][:MAX_PROBLEMS]
    return tuple(
        Problem(tables.recordings[row], tables.statuses[row], tables.table["reason"][row].as_py()) for row in bad
    )


def _warned(tables: Tables, recordings: Ints, warnings: Sequence[Sequence[str]]) -> tuple[Warned, ...]:
    found = ((row, texts) for row, texts in zip(recordings.tolist(), warnings, strict=True) if texts)
    return tuple(Warned(tables.recordings[row], tuple(texts)) for row, texts in islice(found, MAX_PROBLEMS))


def _span(tables: Tables, clock: ZoneInfo, part: Part) -> tuple[np.datetime64, np.datetime64] | None:
    known = part.take(~np.isnat(tables.time[part.recordings]) & (tables.chunks[part.recordings] > 0))
    if not len(known.recordings):
        return None
    begin_s = known.begin * tables.model["chunk_s"]
    first, last = (local_time(tables, clock, known.recordings, at) for at in (begin_s, ends_s(tables, known)))
    return first.min(), last.max()


def _unknown(tables: Tables, tagged: Ints) -> list[str]:
    """Return a note about recordings that are missing from the maps by date and time, if any."""
    unknown = int(np.isnat(tables.time[tagged]).sum())
    if not unknown or unknown == len(tagged):
        return []
    return [
        f"the start of {unknown:,} of {len(tagged):,} recordings is unknown: maps by date and time do not include them"
    ]
