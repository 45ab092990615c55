"""Figures of each class as bars with their intervals: the best and the worst, and all of them."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from satpipe.jobs.evaluate.result import EvaluationResult
from satpipe.reports.pictures import COLOURS, FORMATS, GREY, WIDTH_IN, drawn, label_name, unit_axis

MOST = 20  # best and worst ones in the short picture
LONGEST_NAME = 44
_BAR_IN = 0.155
_FIGURES = {
    "weak": {"average_precision": "Average precision"},
    "strong": {"segment_f1": "Segment-F1", "onset_f1": "Onset-F1"},
}
_COUNTS = {"weak": "clips", "strong": "events"}
_Class = dict[str, Any]


def class_bars(card: EvaluationResult, classes: list[_Class], kind: str, folder: Path) -> list[str]:
    """Draw the figures of classes with truth.

    Args:
        card: What the classes are of.
        classes: Rows of `classes.csv`.
        kind: "weak" or "strong": which figures.
        folder: Where to.

    Returns:
        Names of the pictures, without their endings.
    """
    done = []
    count = _COUNTS[kind]
    for name, title in _FIGURES[kind].items():
        ranked = _ranked(classes, name, count)
        below = _explained(card, count)
        parts = [ranked]
        if len(ranked) > 2 * MOST:
            parts = [ranked[:MOST], ranked[-MOST:]]
            _draw(folder / f"classes_{name}_all", [ranked], ["all"], name, title, count, below)
            done.append(f"classes_{name}_all")
        heads = [f"best {MOST}", f"worst {MOST}"] if len(parts) > 1 else [""]
        _draw(folder / f"classes_{name}", parts, heads, name, title, count, below)
        done.append(f"classes_{name}")
    return done


def _ranked(classes: list[_Class], name: str, count: str) -> list[_Class]:
    return sorted(classes, key=lambda row: (-(row[name] or 0), -row[count], row["label"]))


def _explained(card: EvaluationResult, count: str) -> str:
    text = f"in brackets: {count} in the truth"
    if card["options"]["bootstrap"]:
        text += f"; lines: {card['options']['level']:.0%} bootstrap intervals"
    return text


def _draw(
    place: Path, parts: list[list[_Class]], heads: list[str], name: str, title: str, count: str, below: str
) -> None:
    longest = max(len(part) for part in parts)
    kinds = FORMATS if longest <= 2 * MOST else ("svg",)  # a long one is to be scrolled and searched
    with drawn(place, WIDTH_IN, 0.9 + _BAR_IN * longest, kinds) as figure:
        columns = figure.subplots(1, len(parts), squeeze=False)[0]
        for axes, part, head in zip(columns, parts, heads, strict=True):
            _bars(axes, part, name, count, LONGEST_NAME if len(parts) == 1 else LONGEST_NAME // 2 + 2)
            axes.set_title(f"{title}, {head}" if len(parts) > 1 else f"{title}, {len(part)} classes")
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
    if len(rows) > 2 * MOST:
        axes.tick_params(axis="x", top=True, labeltop=True)
    axes.grid(visible=False, axis="y")
