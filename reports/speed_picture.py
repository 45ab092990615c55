"""Draw the measured speed of tagging and of reading beside their limits."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from satpipe.reports.pictures import COLOURS, GREY, WIDTH_IN, drawn

PICTURE = "speed"
_PRECISIONS = ("fp32", "bf16")
_TAG, _READ = COLOURS[0], COLOURS[2]


def draw(figures: dict[str, Any], folder: Path) -> None:
    """Draw the figures of `satpipe benchmark tag` as an SVG file.

    Raises:
        OutputError: The picture cannot be written.
    """
    tagging, reading = _tagging(figures), _reading(figures)
    height_in = 0.9 + 0.17 * max(len(tagging), len(reading))
    with drawn(folder / PICTURE, WIDTH_IN, height_in, kinds=("svg",)) as figure:
        left, right = figure.subplots(1, 2)
        processors = figures["machine"]["processors"]
        _bars(left, tagging, f"{figures['model']} on {processors} processors, 16 kHz WAV")
        _bars(right, reading, "reading on one processor")


def _tagging(figures: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Return name, x realtime and colour of each bar."""
    rows = [("plain loop, fp32", figures["loop_x_realtime"], GREY)]
    for precision in _PRECISIONS:
        name, model = f"gapless {precision}", figures["models"][f"{figures['model']} {precision}"]
        rows += [
            (f"satpipe tag, {precision}", figures["runs"][name]["x_realtime"], _TAG),
            ("the model alone", figures["model_x_realtime"][precision], GREY),
            ("its matrix products alone", model["bound_x_realtime"] * figures["machine"]["processors"], GREY),
        ]
    return rows


def _reading(figures: dict[str, Any]) -> list[tuple[str, float, str]]:
    rows = []
    for name, row in figures["reading"].items():
        if "resample" in row:
            limit = 1 / (1 / row["decode"] + 1 / row["resample"])
            rows += [(name, row["read"], _READ), ("decoding and resampling alone", limit, GREY)]
    return rows


def _bars(axes: Axes, rows: list[tuple[str, float, str]], title: str) -> None:
    names, values, colours = zip(*rows, strict=True)
    places = range(len(rows))
    axes.barh(places, values, color=colours, height=0.7)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    for place, value in zip(places, values, strict=True):
        axes.annotate(f"{value:,.0f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set(title=title, xlabel="x realtime", xlim=(0, 1.15 * max(values)))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
