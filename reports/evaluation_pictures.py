"""Draw evaluation results: classes, curves, the ground truth on the grid and branches of the ontology."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from satpipe.jobs.evaluate.curves import PR_CHUNKS, PR_CLIPS, RELIABILITY
from satpipe.jobs.evaluate.result import EvaluationResult
from satpipe.pipeline.storage import locate, write_text
from satpipe.reports.class_bars import class_bars
from satpipe.reports.evaluation import paper_tables
from satpipe.reports.pictures import COLOURS, GREY, WIDTH_IN, drawn, label_name, unit_axis
from satpipe.reports.tables import html_page, latex_input, markdown_text
from satpipe.sat.errors import LabelError
from satpipe.sat.labels import find

_Class = dict[str, Any]
_Pen = dict[str, Any]
MAX_CLASSES = 6  # with curves in one picture
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_SOLID: _Pen = {"color": "black", "linestyle": "-", "linewidth": 2.0, "zorder": 3}
_DASHED: _Pen = {"color": "black", "linestyle": (0, (5, 1.5)), "linewidth": 1.4, "zorder": 3}
_CLASS_PENS: list[_Pen] = [  # distinct in black and white too
    {"color": colour, "linestyle": _DASHES[number % len(_DASHES)]}
    for number, colour in enumerate(COLOURS[:MAX_CLASSES])
]
DEFAULT_CLASSES = 4
_PSDS = {"psds1": "scenario 1", "psds2": "scenario 2", "psds1_no_variance": "scenario 1, without variance penalty"}
_WAYS = {"segment": "segments", "onset": "onsets", "event": "onsets and offsets"}


def pictures(
    result: EvaluationResult, curves: pa.Table, folder: str | Path, labels: Sequence[int] | None = None
) -> list[str]:
    """Draw an evaluation result, except for pictures that need ground truth it does not have.

    Args:
        result: From `satpipe.jobs.evaluate`.
        curves: Its table of curves.
        folder: Folder of the pictures, path or URL.
        labels: Classes whose curves are drawn, positions in the model's outputs; by default the most common.

    Returns:
        Names of the pictures, without suffix.

    Raises:
        LabelError: A chosen class has no curve, or too many classes are chosen.
        OutputError: A picture cannot be written.
    """
    place, done = locate(folder), []
    columns = {"weak": ("clips", PR_CLIPS), "strong": ("events", PR_CHUNKS)}
    classes = {kind: [row for row in result["classes"] if row.get(columns[kind][0])] for kind in result["truth"]}
    wanted = None if labels is None else _wanted(labels, classes)
    for kind, known in classes.items():
        count, name = columns[kind]
        chosen = sorted(known, key=lambda row, count=count: -row[count])[:DEFAULT_CLASSES]  # type: ignore[misc]
        if wanted is not None:
            chosen = [row for mid in wanted for row in known if row["mid"] == mid]
        done += class_bars(result, known, kind, place)
        precision_recall(curves, name, chosen, place / name)
        done.append(name)
        if kind == "strong":
            done += _strong(result, curves, known, chosen, place)
    return done


def _wanted(labels: Sequence[int], classes: dict[str, list[_Class]]) -> list[str]:
    """Return the mids of the classes whose curves are wanted."""
    known = {row["mid"] for rows in classes.values() for row in rows}
    wanted = [find(place) for place in labels]
    missing = [label.name for label in wanted if label.mid not in known]
    if missing:
        raise LabelError(f"{missing[0]!r} is not in the ground truth of the evaluation, so it has no curve")
    if len(wanted) > MAX_CLASSES:
        raise LabelError(f"--labels must select at most {MAX_CLASSES} classes, not {len(wanted)}")
    return [label.mid for label in wanted]


def write_tables(results: list[EvaluationResult], folder: str | Path) -> list[Path]:
    """Write the paper's tables with our figures next to the paper's, as Markdown, HTML, LaTeX and CSV.

    Raises:
        OutputError: A file cannot be written.
    """
    by_number = paper_tables(results)
    tables = list(by_number.values())
    texts = {
        "tables.md": markdown_text(tables),
        "tables.html": html_page("Figures compared with the paper's", tables),
        "tables.tex": latex_input(tables),
        **{f"table{number}.csv": table.csv() for number, table in by_number.items()},
    }
    paths = [locate(folder) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def _strong(
    result: EvaluationResult, curves: pa.Table, classes: list[_Class], chosen: list[_Class], place: Path
) -> Iterator[str]:
    if "psds1" in curves["curve"].unique().to_pylist():
        psd_roc(result, curves, chosen, place / "psd_roc")
        yield "psd_roc"
    reliability(result, curves, place / "reliability")
    yield "reliability"
    beside_the_grid(result, classes, place / "ceilings")
    yield "ceilings"
    if result.get("branches", {}).get("rows"):
        branches(result, place / "branches")
        yield "branches"


def _line(curves: pa.Table, name: str, mid: str | None) -> tuple[Any, Any]:
    """Return x and y of a curve, which are empty if the class has none."""
    of_class = pc.is_null(curves["mid"]) if mid is None else pc.equal(curves["mid"], mid)
    points = curves.filter(pc.fill_null(pc.and_(pc.equal(curves["curve"], name), of_class), False))
    return points["x"].to_numpy(), points["y"].to_numpy()


def precision_recall(curves: pa.Table, name: str, classes: list[_Class], place: Path) -> None:
    """Draw precision over recall for all classes together and for some classes; the areas are average precisions."""
    with drawn(place, 6.2, 3.6) as figure:
        axes = figure.subplots()
        lines = [(None, "all together (micro)"), *((row["mid"], row["label"]) for row in classes)]
        for (mid, label), pen in zip(lines, [_SOLID, *_CLASS_PENS], strict=False):
            x, y = _line(curves, name, mid)
            if len(x):
                axes.plot(x, y, label=f"{label_name(label, 40)}: {np.trapezoid(y, x):.2f}", clip_on=False, **pen)
        unit_axis(axes, "x", f"recall of {name.rsplit('_', 1)[1]}")
        unit_axis(axes, "y", "precision")
        axes.set_box_aspect(1)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.02, 1), title="average precision", alignment="left", borderaxespad=0
        )


def reliability(result: EvaluationResult, curves: pa.Table, place: Path) -> None:
    """Draw how often a class is in segments of similar score; calibrated scores lie on the diagonal."""
    x, y = _line(curves, RELIABILITY, None)
    errors = [each["value"] for each in result["figures"] if each["name"] == "calibration_error"]
    with drawn(place, 4.4, 3.6) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        axes.plot(x, y, marker="o", label=f"all classes, error {errors[0]:.3f}", clip_on=False, **_SOLID)
        unit_axis(axes, "x", "mean score of segments")
        unit_axis(axes, "y", "share with the class")
        axes.set_box_aspect(1)
        axes.legend(loc="upper left")


def psd_roc(result: EvaluationResult, curves: pa.Table, classes: list[_Class], place: Path) -> None:
    """Draw the PSD-ROC of each scenario: the mean over classes less its penalty, and some classes."""
    figures = {figure["name"]: figure for figure in result["figures"]}
    with drawn(place, WIDTH_IN, 4.2) as figure:
        for axes, scenario in zip(figure.subplots(1, 2, sharey=True), ("psds1", "psds2"), strict=True):
            how = figures[scenario]
            for name, pen in (("psds1_no_variance", _DASHED), (scenario, _SOLID)):
                if name.startswith(scenario):
                    label = "mean over classes" if name != scenario else "mean less standard deviation"
                    axes.plot(*_line(curves, name, None), label=f"{label}: {figures[name]['value']:.3f}", **pen)
            for row, pen in zip(classes, _CLASS_PENS, strict=False):
                x, y = _line(curves, scenario, row["mid"])
                area = np.trapezoid(y, x) / how["max_efpr"]
                axes.plot(x, y, label=f"{label_name(row['label'], 34)}: {area:.3f}", **pen)
            criteria = f"DTC {how['dtc']:g}, GTC {how['gtc']:g}"
            criteria += "" if how["cttc"] is None else f", CTTC {how['cttc']:g}"
            axes.set_title(f"PSDS {_PSDS[scenario]} ({criteria})")
            axes.set(xlim=(0, how["max_efpr"]), xlabel="effective false positives per hour")
            unit_axis(axes, "y", "effective true positive ratio" if scenario == "psds1" else "")
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), title="area", alignment="left")


def beside_the_grid(result: EvaluationResult, classes: list[_Class], place: Path) -> None:
    """Draw F1 next to that of the ground truth on the grid: for all classes together, and onset-F1 for each class."""
    figures = {(figure["name"], figure["average"]): figure for figure in result["figures"]}
    with drawn(place, WIDTH_IN, 3.1) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        for average, shift, colour in (("micro", -0.19, COLOURS[0]), ("macro_zero", 0.19, COLOURS[1])):
            for position, way in enumerate(_WAYS):
                score, best = (figures[f"{way}_f1{suffix}", average] for suffix in ("", "_ceiling"))
                at = position + shift
                left.bar(at, best["value"] or 0, 0.34, facecolor="white", edgecolor=colour, linestyle="--")
                left.bar(at, score["value"] or 0, 0.34, color=colour)
                if score["low"] is not None:
                    left.vlines(at, score["low"], score["high"], color="black", linewidth=1)
        left.set_xticks(range(len(_WAYS)), list(_WAYS.values()))
        left.grid(visible=False, axis="x")
        unit_axis(left, "y", "F1")
        handles = [
            Patch(color=COLOURS[0], label="micro"),
            Patch(color=COLOURS[1], label="macro, never found = 0"),
            Patch(facecolor="white", edgecolor=GREY, linestyle="--", label="ground truth on the grid"),
        ]
        left.legend(handles=handles, loc="upper right")
        left.set_title(f"Chunks of {result['model']['chunk_s']:g} s")
        x = [row["onset_f1_ceiling"] or 0 for row in classes]
        y = [row["onset_f1"] or 0 for row in classes]
        sizes = [6 + 10 * math.log10(row["events"]) for row in classes]
        right.scatter(x, y, s=sizes, color=COLOURS[0], alpha=0.55, linewidths=0)
        right.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        unit_axis(right, "x", "onset-F1 of the ground truth on the grid")
        unit_axis(right, "y", "onset-F1")
        right.set_title(f"Each of {len(classes)} classes")
        some = [10**power for power in range(4) if 10**power <= max(row["events"] for row in classes)]
        dots = [
            Line2D([], [], marker="o", linestyle="", color=COLOURS[0], alpha=0.55, markeredgewidth=0,
                   markersize=math.sqrt(6 + 10 * math.log10(number)), label=f"{number:,}")
            for number in some
        ]  # fmt: skip
        right.legend(handles=dots, title="true events", loc="upper left", handletextpad=0.2)


def branches(result: EvaluationResult, place: Path) -> None:
    """Draw the share of chunks in which each branch of the ontology is found, for each true branch."""
    rows = result["branches"]["rows"]
    columns = [*rows[0]["found"], "nothing"]
    shares = np.array([[*row["found"].values(), row["nothing"]] for row in rows])
    with drawn(place, WIDTH_IN, 1.0 + 0.36 * len(rows)) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for y, x in np.ndindex(shares.shape):
            colour = "white" if shares[y, x] > 0.55 else "black"
            axes.text(x, y, f"{shares[y, x]:.2f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(columns)), [fill(name, 11) for name in columns], fontsize=7)
        axes.set_yticks(range(len(rows)), [f"{fill(row['branch'], 24)} ({row['chunks']:,})" for row in rows])
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set(xlabel="branch found (share of chunks)", ylabel="only true branch (chunks)")
        axes.axvline(len(columns) - 1.5, color="black", linewidth=1)
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        axes.tick_params(length=0)
