"""What all pictures have in common: style, colours, files. No global state of matplotlib's is left changed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from satpipe.pipeline.storage import locate, written_whole
from satpipe.sat.errors import OutputError

# Okabe and Ito, "Color Universal Design", 2008, without the yellow: told apart by the colour-blind, and on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
GREY = "#6B6B6B"
WIDTH_IN = 7.0  # of a page's text
DOTS_PER_INCH = 200
FORMATS = ("png", "svg")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
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
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
    "svg.hashsalt": "satpipe",  # the same picture is the same file
    "text.parse_math": False,  # a $ in a file's name is one
}


@contextmanager
def drawn(
    place: str | Path, width_in: float = WIDTH_IN, height_in: float = 3.0, kinds: Sequence[str] = FORMATS
) -> Iterator[Figure]:
    """Give a figure to draw on, and write it when it is done.

    Args:
        place: Path or URL of the files, without the ending.
        width_in: Inches.
        height_in: Inches.
        kinds: "png" and "svg", or one of them.

    Raises:
        OutputError: A file cannot be written.
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name; the SVG has it all the same
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        _settle(figure)
        location = locate(place)
        try:
            location.parent.mkdir(parents=True, exist_ok=True)
            for kind in kinds:
                with written_whole(location.with_name(f"{location.name}.{kind}")) as path:
                    _write(figure, path, kind)
        except OSError as error:
            raise OutputError(f"{location}.* cannot be written: {error.strerror or error}") from error


def _settle(figure: Figure) -> None:
    """Lay out once, and round: the solver's last digits depend on where its variables lie in memory."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))


def _write(figure: Figure, path: Path, kind: str) -> None:
    with path.open("wb") as file:
        if kind == "png":
            FigureCanvasAgg(figure)
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        else:
            FigureCanvasSVG(figure)
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def pens() -> Iterator[dict[str, Any]]:
    """Give colours and dashes for lines: also told apart in black and white."""
    for number, colour in enumerate(cycle(COLOURS)):
        yield {"color": colour, "linestyle": DASHES[(number + number // len(COLOURS)) % len(DASHES)]}


def unit_axis(axes: Axes, which: str = "y", label: str = "") -> None:
    """Let an axis go from 0 to 1."""
    axes.set(**{f"{which}lim": (0, 1), f"{which}ticks": [0, 0.2, 0.4, 0.6, 0.8, 1], f"{which}label": label})


def label_name(name: str, most: int) -> str:
    """Return the name of a class; of a long one its first part ("Gunshot" of "Gunshot, gunfire"), or its beginning."""
    if len(name) <= most:
        return name
    first = name.partition(", ")[0]
    return first if len(first) <= most else f"{name[: most - 1].rstrip()}…"


def file_name(name: str, most: int) -> str:
    """Return the name of a recording; of a long one its end, which tells it from the others."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
