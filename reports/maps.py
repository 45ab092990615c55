"""Draw the maps of a report as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.report_data import Detail, ReportData
from satpipe.jobs.report_data.contents import NOT_TAGGED, SCORE_STEPS, SHARE_STEPS
from satpipe.pipeline.storage import locate, relative_path
from satpipe.reports.colours import ramp
from satpipe.reports.pictures import FORMATS, GREY, WIDTH_IN, drawn, file_name, label_name

OVER_TIME, BY_LABEL, RECORDINGS = "labels_over_time", "when", "recordings"
LONGEST_SUFFIX = "." + max(FORMATS, key=len)
MAX_ROWS = 20  # labels in the first picture
MAX_PANELS = 12  # labels with a panel each
MAX_TIMES = 366
MAX_RECORDINGS = 24
_COLUMNS = 3
_LONGEST_NAME = 30
_ROW_IN = 0.17


def pictures(found: ReportData, folder: str | Path) -> tuple[list[str], str]:
    """Draw labels over time, when each label is found, and recordings one by one.

    Returns:
        Names of the pictures, without suffix, and a note about pictures left out, or "".

    Raises:
        OutputError: A picture cannot be written.
    """
    place, names = locate(folder), []
    level = found.levels.index(found.threshold)
    reaching = [
        label
        for label, total in enumerate(found.labels[: len(found.shares)])
        if total.duration_s[level] > 0 and total.group is None
    ]
    shares = (found.shares[reaching, level] / SHARE_STEPS) ** 2  # [K, rows, columns]
    if reaching:
        heads = [found.labels[label].name for label in reaching]
        _over_time(place / OVER_TIME, found, heads[:MAX_ROWS], shares[:MAX_ROWS])
        _by_label(place / BY_LABEL, found, heads[:MAX_PANELS], shares[:MAX_PANELS])
        names += [OVER_TIME, BY_LABEL]
    details = [detail for detail in found.details if _lines(found, detail)]
    for detail in details[:MAX_RECORDINGS]:
        names.append(f"{RECORDINGS}/{relative_path(detail.recording, LONGEST_SUFFIX).removesuffix(LONGEST_SUFFIX)}")
        _recording(place / names[-1], found, detail)
    left = len(details) - MAX_RECORDINGS
    return names, f"{left} of the {len(details)} recordings on the page have no picture" if left > 0 else ""


def _over_time(place: Path, found: ReportData, heads: list[str], shares: Floats) -> None:
    """Draw shares of labels [K, rows, columns], a row for each label, relative to the label's highest share."""
    grid, chunks = found.grid, found.chunks
    if grid.kind == "place":
        shares, chunks = shares.transpose(0, 2, 1), chunks.T
        times: Sequence[str] = [file_name(name, 16) for name in grid.rows]
    elif chunks.size <= MAX_TIMES:
        shares = shares.transpose(0, 2, 1).reshape(len(heads), 1, -1)
        chunks = chunks.T.reshape(1, -1)
        times = [f"{date} {time}" if len(grid.columns) > 1 else time for date in grid.columns for time in grid.rows]
    else:
        times = grid.columns
    total = chunks.sum(axis=0)
    values = np.divide(
        (shares * chunks).sum(axis=1), total, out=np.full((len(heads), len(total)), np.nan), where=total > 0
    )
    highest = np.nanmax(values, axis=1, keepdims=True)
    values /= np.where(highest > 0, highest, 1)  # a label below the threshold everywhere stays 0
    with drawn(place, WIDTH_IN, 0.9 + _ROW_IN * len(heads)) as figure:
        axes = figure.subplots()
        image = _map(axes, values, 1)
        axes.set_title(f"Share of time with a score of at least {found.threshold:g}, relative to each label's maximum")
        axes.set_yticks(range(len(heads)), [label_name(head, _LONGEST_NAME) for head in heads])
        _ticks(axes, times, 6)
        if grid.kind == "clock":
            axes.set_xlabel(found.time_zone)
        _scale(figure, image, [axes])


def _by_label(place: Path, found: ReportData, heads: list[str], shares: Floats) -> None:
    """Draw a panel for each label: shares [K, rows, columns]."""
    grid = found.grid
    rows = -(-len(heads) // _COLUMNS)
    if grid.kind == "clock":
        shown, columns = np.arange(0, len(grid.rows), len(grid.rows) // 4), list(grid.columns)
        names, shift = [grid.rows[row] for row in shown], -0.5
    else:
        shown, columns = _evenly(len(grid.rows), 8), [f"{float(start_s):.0f} s" for start_s in grid.columns]
        names, shift = [file_name(grid.rows[row], 14) for row in shown], 0
    with drawn(place, WIDTH_IN, 0.5 + 1.5 * rows) as figure:
        panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(heads) :]:
            axes.set_axis_off()
        for axes, head, share in zip(panels.flat, heads, shares, strict=False):
            highest = float(share.max())
            image = _map(axes, np.where(found.chunks > 0, share, np.nan) / (highest or 1), 1)
            axes.set_title(f"{label_name(head, 20)}, up to {highest:.2g}", fontsize=8)
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_yticks(shown + shift, names)
            _ticks(axes, columns, 2)
        about = f"share of time with a score of at least {found.threshold:g}; 1: the label's maximum"
        figure.supxlabel(about, fontsize=8)
        _scale(figure, image, panels.ravel().tolist())


def _recording(place: Path, found: ReportData, detail: Detail) -> None:
    lines = _lines(found, detail)
    with drawn(place, WIDTH_IN, 0.8 + _ROW_IN * len(lines)) as figure:
        axes = figure.subplots()
        scores = detail.scores[lines] / SCORE_STEPS
        scores = np.where(
            detail.scores[lines] == NOT_TAGGED, np.nan, np.where(scores < found.threshold - 1e-9, 0, scores)
        )
        image = _map(axes, scores, detail.duration_s)
        names = [found.labels[detail.labels[line]].name for line in lines]
        axes.set_yticks(range(len(lines)), [label_name(name, _LONGEST_NAME) for name in names])
        axes.set_title(file_name(detail.recording, 70))
        axes.set_xlabel("seconds")
        _scale(figure, image, [axes])


def _lines(found: ReportData, detail: Detail) -> list[int]:
    """Return the rows of a recording's scores that reach the threshold."""
    highest = np.max(detail.scores, axis=1, initial=0, where=detail.scores != NOT_TAGGED)
    reach = highest / SCORE_STEPS >= found.threshold - 1e-9
    return np.flatnonzero(reach).tolist()


def _map(axes: Axes, values: Floats, width: float) -> Any:
    """Draw cells with values from 0 to 1, [rows, columns]; cells without a value stay grey."""
    colours = ListedColormap(ramp()).with_extremes(bad="#E3E3E3")
    right = values.shape[1] - 0.5 if width == 1 else width
    left = -0.5 if width == 1 else 0.0
    extent = (left, right, values.shape[0] - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=2)
    return axes.imshow(values, colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=extent)


def _ticks(axes: Axes, names: Sequence[str], most: int) -> None:
    shown = _evenly(len(names), most)
    axes.set_xticks(shown, [names[place] for place in shown])


def _evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return up to `most` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _scale(figure: Figure, image: Any, axes: list[Axes]) -> None:
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=GREY)
