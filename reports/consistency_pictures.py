"""Draw scores over time under several regimes, and tabulate their figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from satpipe.jobs.consistency import Consistency, Figures
from satpipe.jobs.metrics.arrays import Floats
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.reports.pictures import COLOURS, GREY, WIDTH_IN, drawn, file_name, label_name, unit_axis
from satpipe.reports.tables import Table

PICTURE = "consistency"
MARKS = "osD^vPX"  # markers of means
MAX_PANELS = 12
MAX_COLUMNS = 3
MAX_STEPS = 1000  # steps of a line; if there are more chunks, each step is the mean of several
MAX_ROWS = 60  # rows of the table; beyond that, only those for all recordings together
_UNITS = (("hours", 3600.0, 3.0), ("minutes", 60.0, 3.0), ("seconds", 1.0, 0.0))


def picture(found: Consistency, folder: str | Path) -> str:
    """Draw scores over time, a panel for each recording and class, with mean and standard deviation next to it.

    Returns:
        A note about panels left out, or "".

    Raises:
        OutputError: The picture cannot be written.
    """
    columns = min(len(found.labels), MAX_COLUMNS)
    panels = [(clip, k) for clip in range(len(found.recordings)) for k in range(len(found.labels))]
    shown = panels[:MAX_PANELS]
    rows = -(-len(shown) // columns)
    styles = [_pen(place) for place in range(len(found.regimes))]
    height_in = 0.35 + 0.17 * len(found.regimes) + rows * (1.75 if columns > 1 else 1.9)
    with drawn(locate(folder) / PICTURE, WIDTH_IN, height_in) as figure:
        grid = figure.add_gridspec(rows, columns)
        for place, (clip, k) in enumerate(shown):
            pair = grid[place].subgridspec(1, 2, width_ratios=[9 / columns + 2, 1], wspace=0.02)
            axes = figure.add_subplot(pair[0])
            _panel(axes, found, clip, k, styles)
            _spread(figure.add_subplot(pair[1], sharey=axes), found, clip, k, styles)
            if place % columns:
                axes.set_ylabel("")
        _legend(figure, found, styles)
    if len(shown) < len(panels):
        return f"{PICTURE} shows {len(shown)} of {len(panels):,} pairs of recording and class; the tables contain all"
    return ""


def _panel(axes: Axes, found: Consistency, clip: int, k: int, styles: list[dict[str, Any]]) -> None:
    end_s = max(float(read.end_s[read.first[clip + 1] - 1]) for read in found.scores)
    unit, per_s = next((unit, per_s) for unit, per_s, minimum in _UNITS if end_s >= minimum * per_s)
    merged = 1
    for read, pen in zip(found.scores, styles, strict=True):
        edges_s, values, each = _steps(read, clip, k)
        merged = max(merged, each)
        axes.stairs(values, edges_s / per_s, baseline=None, linewidth=0.9, **pen)
    axes.axhline(found.threshold, color=GREY, linewidth=0.8, linestyle=":", zorder=4)
    axes.set_title(f"{label_name(found.labels[k].name, 30)} in {file_name(found.recordings[clip], 34)}", fontsize=8)
    axes.set(xlim=(0, end_s / per_s), xlabel=unit + (f" (means of {merged:,} chunks)" if merged > 1 else ""))
    unit_axis(axes, "y", "score")


def _pen(place: int) -> dict[str, Any]:
    """Return the style of a regime's line; the first line is on top. Dashes would blur on jagged lines."""
    return {"color": COLOURS[place % len(COLOURS)], "zorder": 3 - place / 100}


def _steps(read: ChunkScores, clip: int, k: int) -> tuple[Floats, Floats, int]:
    """Return the edges of steps [n + 1], their heights [n], and the number of chunks per step."""
    rows = slice(*read.first[clip : clip + 2])
    values, start_s = read.scores[rows, k].astype(np.float64), read.start_s[rows]
    each = -(-len(values) // MAX_STEPS)
    first = np.arange(0, len(values), each)
    heights = np.add.reduceat(values, first) / np.diff(np.append(first, len(values)))
    return np.append(start_s[first], read.end_s[rows][-1]), heights, each


def _spread(axes: Axes, found: Consistency, clip: int, k: int, styles: list[dict[str, Any]]) -> None:
    """Draw mean and standard deviation of each regime."""
    figures = {(each.regime, each.recording, each.mid): each for each in found.figures}
    for place, (regime, pen) in enumerate(zip(found.regimes, styles, strict=True)):
        figure = figures[regime.name, found.recordings[clip], found.labels[k].mid]
        mark: Any = {"marker": MARKS[place % len(MARKS)], "markersize": 3, "capsize": 2, "linewidth": 1}
        axes.errorbar(place, figure.mean, figure.std, color=pen["color"], **mark)
    axes.set_xlim(-0.7, len(found.regimes) - 0.3)
    axes.set_xticks([])
    axes.tick_params(axis="y", labelleft=False, length=0)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, found: Consistency, styles: list[dict[str, Any]]) -> None:
    lines = [
        Line2D([], [], label=regime.name, marker=MARKS[place % len(MARKS)], markersize=4, color=pen["color"])
        for place, (regime, pen) in enumerate(zip(found.regimes, styles, strict=True))
    ]
    lines.append(Line2D([], [], color=GREY, linewidth=0.8, linestyle=":", label=f"threshold {found.threshold:g}"))
    figure.legend(
        handles=lines, loc="outside lower left", ncols=2 if len(lines) > 3 else len(lines),
        title="score of chunks; right of each: mean and standard deviation", alignment="left",
    )  # fmt: skip


def table(figures: Sequence[Figures], threshold: float) -> Table:
    """Return a table of figures; beyond `MAX_ROWS`, only those for all recordings together."""
    pooled = len(figures) > MAX_ROWS and any(figure.recording is None for figure in figures)
    rows = [
        (
            figure.label,
            figure.recording or "all",
            figure.regime,
            f"{figure.mean:.3f}",
            f"{figure.std:.3f}",
            f"{figure.share_above:.1%}",
            f"{figure.longest_gap_s:,.1f}",
        )
        for figure in figures
        if figure.recording is None or not pooled
    ]
    heads = ("mean", "std", f"chunks that reach {threshold:g}", f"longest time below {threshold:g}, s")
    return Table("Score over time", ("label", "recording", "model", *heads), tuple(rows), text_columns=3)
