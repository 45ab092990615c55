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
from satpipe.jobs.report_data.contents import SHARE_STEPS, Detail, LabelTotal, Problem, ReportData, Warned
from satpipe.jobs.report_data.count import Counter
from satpipe.jobs.report_data.excerpts import with_sound
from satpipe.jobs.report_data.grid import grid, local
from satpipe.jobs.report_data.moments import choose as choose_moments
from satpipe.pipeline.recording_warnings import count as count_warnings
from satpipe.pipeline.start_times.resolver import find_zone
from satpipe.pipeline.tables.open_folder import Ints, Tables
from satpipe.sat.labels import choose, weak_labels
from satpipe.sat.model.config import CLASSES

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
        OutputError: `out` is not an output folder or has no scores, a file is damaged, or a recording is unknown.
        LabelError: A class is unknown.
        ConfigError: The time zone is unknown.
    """
    columns = tuple(range(CLASSES)) if options.labels is None else choose(options.labels)
    clock, tables = find_zone(options.time_zone), Tables(out)
    recordings = tables.choose(options.recordings)
    tagged = recordings[tables.chunks[recordings] > 0]
    shown = tagged[np.linspace(0, len(tagged) - 1, min(len(tagged), MAX_DETAILS)).round().astype(np.int64)]
    levels = np.unique([*LEVELS, options.threshold])
    cells = grid(tables, clock, recordings)
    shape = (len(cells.rows), len(cells.columns))
    counter = Counter(tables, columns, cells, levels, options.threshold, shown)
    counter.count(tables.part(recordings))
    order = _order(counter, levels, options.threshold)
    peaks = (counter.certain, counter.doubtful)
    moments = choose_moments(tables, clock, *peaks, order[:MAX_LABELS], MAX_MOMENTS)
    warnings = tables.table["warnings"].take(pa.array(recordings)).to_pylist()
    statuses = Tally(tables.statuses[row] for row in recordings.tolist())
    return ReportData(
        out=str(out),
        run=tables.run,
        model=tables.model,
        threshold=options.threshold,
        time_zone=options.time_zone,
        recordings=len(recordings),
        duration_s=float(np.nansum(tables.duration_s[recordings])),
        statuses=dict(sorted(statuses.items(), key=lambda pair: (-pair[1], pair[0]))),
        problems=_problems(tables, recordings),
        warnings=count_warnings(warnings),
        warned=_warned(tables, recordings, warnings),
        span=_span(tables, clock, tagged),
        levels=tuple(levels.tolist()),
        labels=tuple(
            LabelTotal(weak_labels()[columns[k]], tuple(counter.duration_s[k].tolist()), float(counter.peak[k]))
            for k in order
        ),
        grid=cells,
        chunks=counter.chunks[:-1].reshape(shape),
        shares=_shares(counter, order[:MAX_LABELS], shape),
        details=tuple(_detail(tables, clock, row, counter.curves[row], order) for row in shown.tolist()),
        tagged=len(tagged),
        moments=tuple(with_sound(tables, moments) if options.audio else moments),
        notes=(*tables.notes, *_unknown(tables, tagged)),
    )


def _order(counter: Counter, levels: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.intp]:
    """Return the positions of the counted classes that reach the lowest level, the most common first."""
    at = int(np.searchsorted(levels, threshold))
    duration_s = counter.duration_s.round(3)  # classes of equal length stay in the order of the model's outputs
    # Lower levels determine the order of classes that never reach the threshold.
    keys = [-duration_s[:, level] for level in (*range(len(levels) - 1, at, -1), *range(at + 1))]
    order = np.lexsort(keys)
    return np.asarray(order[counter.duration_s[order, 0] > 0])


def _shares(counter: Counter, order: npt.NDArray[np.intp], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return `ReportData.shares`; a very small share is not rounded to 0."""
    reached = counter.reached[order, :, :-1].reshape(len(order), counter.reached.shape[1], *shape)
    chunks = np.maximum(counter.chunks[:-1], 1).reshape(shape)
    steps = np.rint(np.sqrt(reached / chunks) * SHARE_STEPS)
    return np.asarray(np.where(reached > 0, np.maximum(steps, 1), 0).astype(np.uint8))


def _detail(
    tables: Tables, clock: ZoneInfo, row: int, curves: npt.NDArray[np.uint8], order: npt.NDArray[np.intp]
) -> Detail:
    curves = curves[order]
    highest = curves.max(axis=1)
    labels = np.lexsort((np.arange(len(order)), -curves.mean(axis=1), -highest.astype(np.int64)))[:MAX_CURVES]
    labels = labels[highest[labels] > 0]
    return Detail(
        tables.recordings[row],
        tables.statuses[row],
        float(tables.duration_s[row]),
        local(tables, clock, [row], 0)[0],
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


def _span(tables: Tables, clock: ZoneInfo, tagged: Ints) -> tuple[np.datetime64, np.datetime64] | None:
    known = tagged[~np.isnat(tables.time[tagged])]
    if not len(known):
        return None
    return local(tables, clock, known, 0).min(), local(tables, clock, known, tables.duration_s[known]).max()


def _unknown(tables: Tables, tagged: Ints) -> list[str]:
    """Return a note about recordings that are missing from the maps by date and time, if any."""
    unknown = int(np.isnat(tables.time[tagged]).sum())
    if not unknown or unknown == len(tagged):
        return []
    return [
        f"the start of {unknown:,} of {len(tagged):,} recordings is unknown: maps by date and time do not include them"
    ]
