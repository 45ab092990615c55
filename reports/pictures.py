"""Style, colours and files of all pictures; matplotlib's global state does not change."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from satpipe.pipeline.storage import locate, output_file

# Okabe and Ito, "Color Universal Design", 2008, without yellow: distinct for colour-blind readers and on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#6B6B6B"
WIDTH_IN = 7.0  # width of the text on a page
DOTS_PER_INCH = 200
_KINDS: dict[
    str, tuple[Any, dict[str, Any]]
] = {  # without dates and versions, so that the same picture has the same bytes
    "png": (FigureCanvasAgg, {"dpi": DOTS_PER_INCH, "metadata": {"Software": None}}),
    "svg": (FigureCanvasSVG, {"metadata": {"Date": None, "Creator": None}}),
}
FORMATS = tuple(_KINDS)
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so it is the same everywhere
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",  # text stays text, which can be searched, read aloud and edited
    "svg.hashsalt": "satpipe",  # reproducible identifiers
    "text.parse_math": False,  # a $ in a file name is a dollar sign
}


@contextmanager
def drawn(
    place: str | Path, width_in: float = WIDTH_IN, height_in: float = 3.0, kinds: Sequence[str] = FORMATS
) -> Iterator[Figure]:
    """Yield a figure to draw on, and write it at the end.

    Args:
        place: Path or URL of the files, without suffix.
        width_in: Width in inches.
        height_in: Height in inches.
        kinds: "png", "svg" or both.

    Raises:
        OutputError: A file cannot be written.
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the SVG contains the text in any case
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        _settle(figure)
        location = locate(place)
        for kind in kinds:
            canvas, options = _KINDS[kind]
            canvas(figure)
            with output_file(location.with_name(f"{location.name}.{kind}")) as path, path.open("wb") as file:
                figure.savefig(file, format=kind, **options)


def _settle(figure: Figure) -> None:
    """Lay out once, and round positions: their last digits depend on memory addresses in the solver."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))


def unit_axis(axes: Axes, which: str = "y", label: str = "") -> None:
    """Set an axis from 0 to 1."""
    axes.set(**{f"{which}lim": (0, 1), f"{which}ticks": [0, 0.2, 0.4, 0.6, 0.8, 1], f"{which}label": label})


def label_name(name: str, most: int) -> str:
    """Return the name of a class, shortened to its first part ("Gunshot" of "Gunshot, gunfire") or its beginning."""
    if len(name) <= most:
        return name
    first = name.partition(", ")[0]
    return first if len(first) <= most else f"{name[: most - 1].rstrip()}…"


def file_name(name: str, most: int) -> str:
    """Return the name of a recording, shortened to its end, which differs most between recordings."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
