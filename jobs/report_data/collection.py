"""From an output folder to its overview."""

from collections import Counter as Tally
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from satpipe.jobs.report_data.contents import Detail, LabelTotal, Moment, Problem, ReportData
from satpipe.jobs.report_data.count import Counter
from satpipe.jobs.report_data.excerpts import NO_EXCERPT, excerpts
from satpipe.jobs.report_data.grid import Grid, grid, local
from satpipe.jobs.report_data.moments import Spot
from satpipe.jobs.report_data.moments import choose as choose_moments
from satpipe.jobs.report_data.options import ReportOptions
from satpipe.pipeline.start_times.resolver import find_zone
from satpipe.pipeline.tables.open_folder import Ints, Tables
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import choose, weak_labels
from satpipe.sat.model.config import CLASSES

LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # and the threshold, if that is none of these
# What follows keeps the page under 15 MB whatever the folder holds; `tests/test_overview.py` reckons it.
MOST_LABELS = 48  # with maps and moments
MOST_DETAILS = 100  # recordings shown one by one
MOST_CURVES = 16  # labels of each
MOST_MOMENTS = 2  # of each label and kind
MOST_PROBLEMS = 50
SHARE_STEPS = 255


def collect(out: str | Path, options: ReportOptions) -> ReportData:
    """Look at a folder.

    Raises:
        OutputError: It is no output folder, has no scores, is damaged (the file is named), or has no such recording.
        LabelError: There is no such class.
        ConfigError: A threshold that is none, or no such time zone.
    """
    if not 0 < options.threshold <= 1:
        raise ConfigError(f"a threshold of {options.threshold:g}: scores lie between 0 and 1")
    columns = tuple(range(CLASSES)) if options.labels is None else choose(options.labels)
    clock, tables = find_zone(options.time_zone), Tables(out)
    recordings = tables.choose(options.recordings)
    tagged = recordings[tables.chunks[recordings] > 0]
    shown = tagged[np.linspace(0, len(tagged) - 1, min(len(tagged), MOST_DETAILS)).round().astype(np.int64)]
    levels = np.unique([*LEVELS, options.threshold])
    cells = grid(tables, clock, recordings)
    counter = Counter(tables, columns, cells, levels, options.threshold, shown)
    counter.count(tables.part(recordings))
    order = _order(counter, levels, options.threshold)
    spots = choose_moments(counter.certain, counter.doubtful, order[:MOST_LABELS], MOST_MOMENTS)
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
        span=_span(tables, clock, tagged),
        levels=tuple(levels.tolist()),
        labels=_totals(counter, columns, order),
        grid=cells,
        chunks=counter.chunks[:-1].reshape(len(cells.rows), len(cells.columns)),
        shares=_shares(counter, order[:MOST_LABELS], cells),
        details=tuple(_detail(tables, clock, row, counter.curves[row], order) for row in shown.tolist()),
        tagged=len(tagged),
        moments=_moments(tables, clock, spots, options.audio),
        notes=(*tables.notes, *_unknown(tables, tagged)),
    )


def _order(counter: Counter, levels: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.intp]:
    """Return the classes that reach the lowest level, those found most first; positions among those counted."""
    at = int(np.searchsorted(levels, threshold))
    duration_s = counter.duration_s.round(3)  # those of equal length stay in the order of the classes
    # Of those that never reach the threshold, what they have below it decides.
    keys = [-duration_s[:, level] for level in (*range(len(levels) - 1, at, -1), *range(at + 1))]
    order = np.lexsort(keys)
    return np.asarray(order[counter.duration_s[order, 0] > 0])


def _totals(counter: Counter, columns: tuple[int, ...], order: npt.NDArray[np.intp]) -> tuple[LabelTotal, ...]:
    labels = (weak_labels()[columns[place]] for place in order)
    duration_s = counter.duration_s[order].tolist()
    peaks = counter.peak[order].tolist()
    return tuple(LabelTotal(*each) for each in zip(labels, map(tuple, duration_s), peaks, strict=True))


def _shares(counter: Counter, order: npt.NDArray[np.intp], cells: Grid) -> npt.NDArray[np.uint8]:
    """Shares of chunks, as `ReportData.shares` has them; what is little is not nothing."""
    shape = (len(order), counter.reached.shape[1], len(cells.rows), len(cells.columns))
    reached = counter.reached[order, :, :-1].reshape(shape)
    chunks = np.maximum(counter.chunks[:-1], 1).reshape(shape[2:])
    steps = np.rint(np.sqrt(reached / chunks) * SHARE_STEPS)
    return np.asarray(np.where(reached > 0, np.maximum(steps, 1), 0).astype(np.uint8))


def _detail(
    tables: Tables, clock: ZoneInfo, row: int, curves: npt.NDArray[np.uint8], order: npt.NDArray[np.intp]
) -> Detail:
    curves = curves[order]
    highest = curves.max(axis=1)
    labels = np.lexsort((np.arange(len(order)), -curves.mean(axis=1), -highest.astype(np.int64)))[:MOST_CURVES]
    labels = labels[highest[labels] > 0]
    return Detail(
        tables.recordings[row],
        tables.statuses[row],
        float(tables.duration_s[row]),
        _local(tables, clock, row),
        tuple(labels.tolist()),
        curves[labels],
    )


def _local(tables: Tables, clock: ZoneInfo, row: int, second: float = 0.0) -> np.datetime64:
    time: np.datetime64 = local(tables, clock, np.array([row]), [second])[0]
    return time


def _moments(tables: Tables, clock: ZoneInfo, spots: list[Spot], audio: bool) -> tuple[Moment, ...]:
    sounds = excerpts(tables, spots) if audio else [NO_EXCERPT] * len(spots)
    return tuple(
        Moment(
            spot.kind,
            spot.label,
            spot.rank,
            tables.recordings[spot.recording],
            spot.start_s,
            spot.end_s,
            spot.score,
            _local(tables, clock, spot.recording, spot.start_s),
            sound,
        )
        for spot, sound in zip(spots, sounds, strict=True)
    )


def _problems(tables: Tables, recordings: Ints) -> tuple[Problem, ...]:
    bad = [row for row in recordings.tolist() if tables.statuses[row] != "ok"][:MOST_PROBLEMS]
    reasons = tables.table["reason"].take(np.array(bad, np.int64)).to_pylist()
    return tuple(
        Problem(tables.recordings[row], tables.statuses[row], reason) for row, reason in zip(bad, reasons, strict=True)
    )


def _span(tables: Tables, clock: ZoneInfo, tagged: Ints) -> tuple[np.datetime64, np.datetime64] | None:
    known = tagged[~np.isnat(tables.time[tagged])]
    if not len(known):
        return None
    start, end = (local(tables, clock, known, seconds) for seconds in (np.zeros(len(known)), tables.duration_s[known]))
    return start.min(), end.max()


def _unknown(tables: Tables, tagged: Ints) -> list[str]:
    """Say how many recordings have no place in a map by the clock."""
    unknown = int(np.isnat(tables.time[tagged]).sum())
    if not unknown or unknown == len(tagged):
        return []
    return [f"when {unknown:,} of {len(tagged):,} recordings started is not known: the maps by the clock lack them"]
