"""Figures of each class as bars with intervals: the best and the worst classes, and all classes."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from satpipe.jobs.evaluate.result import EvaluationResult
from satpipe.reports.pictures import COLOURS, FORMATS, GREY, WIDTH_IN, drawn, label_name, unit_axis

MAX_BARS = 20  # number of best and of worst classes in the short picture
MAX_NAME = 44
_BAR_IN = 0.155
_FIGURES = {
    "weak": {"average_precision": "Average precision"},
    "strong": {"segment_f1": "Segment-F1", "onset_f1": "Onset-F1"},
}
_COUNTS = {"weak": "clips", "strong": "events"}
_Class = dict[str, Any]


def class_bars(result: EvaluationResult, classes: list[_Class], kind: str, folder: Path) -> list[str]:
    """Draw the figures of the classes in the ground truth.

    Args:
        result: The evaluation result of the classes.
        classes: Rows of `classes.csv`.
        kind: "weak" or "strong", which determines the figures.
        folder: Folder of the pictures.

    Returns:
        Names of the pictures, without suffix.
    """
    done, count = [], _COUNTS[kind]
    below = f"in brackets: {count} in the ground truth"
    if result["options"]["bootstrap"]:
        below += f"; lines: {result['options']['level']:.0%} bootstrap intervals"
    for name, title in _FIGURES[kind].items():
        ranked = sorted(classes, key=lambda row: (-(row[name] or 0), -row[count], row["label"]))
        parts = {f"{len(ranked)} classes": ranked}
        if len(ranked) > 2 * MAX_BARS:
            _draw(folder / f"classes_{name}_all", parts, name, title, count, below)
            done.append(f"classes_{name}_all")
            parts = {f"best {MAX_BARS}": ranked[:MAX_BARS], f"worst {MAX_BARS}": ranked[-MAX_BARS:]}
        _draw(folder / f"classes_{name}", parts, name, title, count, below)
        done.append(f"classes_{name}")
    return done


def _draw(place: Path, parts: dict[str, list[_Class]], name: str, title: str, count: str, below: str) -> None:
    longest = max(map(len, parts.values()))
    kinds = FORMATS if longest <= 2 * MAX_BARS else ("svg",)  # readers scroll and search a long picture
    with drawn(place, WIDTH_IN, 0.9 + _BAR_IN * longest, kinds) as figure:
        columns = figure.subplots(1, len(parts), squeeze=False)[0]
        for axes, (head, part) in zip(columns, parts.items(), strict=True):
            _bars(axes, part, name, count, MAX_NAME if len(parts) == 1 else MAX_NAME // 2 + 2)
            axes.set_title(f"{title}, {head}")
            unit_axis(axes, "x")
        figure.supxlabel(below, fontsize=8, color=GREY)


def _bars(axes: Axes, rows: list[_Class], name: str, count: str, longest: int) -> None:
    places = range(len(rows))
    axes.barh(places, [row[name] or 0 for row in rows], 0.72, color=COLOURS[4])
    limits = [(place, row.get(f"{name}_low"), row.get(f"{name}_high")) for place, row in enumerate(rows)]
    known = [limit for limit in limits if None not in limit]
    if known:
        axes.hlines(*zip(*known, strict=True), color="black", linewidth=0.9, clip_on=False)
    for place, row in enumerate(rows):
        number = "never found" if row[name] is None else f"{row[name]:.2f}"
        axes.text(1.03, place, number, va="center", color=GREY)
    axes.set_yticks(places, [f"{label_name(row['label'], longest)} ({row[count]:,})" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    if len(rows) > 2 * MAX_BARS:
        axes.tick_params(axis="x", top=True, labeltop=True)
    axes.grid(visible=False, axis="y")
