"""Evaluation results as text: the figures next to the paper's, the paper's tables, two results side by side."""

from collections.abc import Iterable, Mapping
from math import isclose
from typing import Any

from rich import table as layouts
from rich.console import Console
from satpipe.jobs.evaluate.paired import Paired
from satpipe.jobs.evaluate.result import ROW_FIGURES, EvaluationResult, shared
from satpipe.reports import paper
from satpipe.reports.tables import Table
from satpipe.sat.model.config import grids_text
from satpipe.sat.printable import counted, printable

_NAMES = {
    "mAP": "mAP",
    "auc": "AUC",
    "d_prime": "d'",
    "lwlrap": "lwlrap",
    "segment_mAP": "mAP (segments)",
    "segment_auc": "AUC (segments)",
    "segment_d_prime": "d' (segments)",
    "calibration_error": "expected calibration error (segments)",
    "segment_f1": "segment-F1",
    "onset_f1": "onset-F1",
    "event_f1": "event-F1",
    "intersection_f1": "intersection-F1",
    "error_rate": "error rate (segments)",
    "onset_error_rate": "error rate (onsets)",
    "event_error_rate": "error rate (events)",
    **{
        f"{way}_{rate}": f"{rate} ({way}s)"
        for way in ("segment", "onset", "event", "intersection")
        for rate in ("precision", "recall")
    },
    "psds1": "PSDS1",
    "psds2": "PSDS2",
    "psds1_no_variance": "PSDS1 without variance penalty",
}
_AVERAGES = {"micro": "micro", "macro": "macro", "macro_zero": "macro, never found = 0"}
_IN_PERCENT = ("mAP", "lwlrap", "_f1", "precision", "recall", "psds")
_NOT_PRINTED = ("precision", "recall")
PAPERS_COLLAR_S = 0.2
_SAME_LENGTH = 0.05  # chunks of 1.92 s have a delay of 2 s
_Figure = dict[str, Any]


def result_text(result: EvaluationResult) -> list[str]:
    """Return a description of the evaluation, then each figure, next to that of the paper if it has one."""
    model = result["model"]
    lines = [
        f"{result['out']}: {model['arch']}, {model['delay_s']:g} s delay, memory {model['memory']}, {model['cut']}"
        f"{_grids(model)}, {model['precision']} (sha256 {model['sha256'][:12]})"
    ]
    lines += [_ground_truth(kind, truth) for kind, truth in result["truth"].items()]
    lines += [f"note: {note}" for note in result["notes"]]
    table = _table("", *_AVERAGES.values(), "paper")
    published = False
    for name, figures in _by_name(result["figures"]).items():
        if _plain(name).endswith(_NOT_PRINTED):
            continue
        theirs = _published(next(iter(figures.values())), model)
        published = published or bool(theirs)
        cells = [_cell(figures.get(average)) for average in _AVERAGES]
        table.add_row(_title(name, next(iter(figures.values()))), *cells, theirs)
    lines += [*_render(table), ""]
    if published:
        lines.append(f"paper: Dinkel et al. (2024), the published {model['arch']} on AudioSet's evaluation set.")
    if "cross_check" in result:
        lines.append(_cross_check(result["cross_check"]))
    if any(figure["low"] is not None for figure in result["figures"]):
        level, samples = result["options"]["level"], result["options"]["bootstrap"]
        lines.append(f"In brackets: {level:.0%} intervals of {samples} bootstrap samples of the recordings.")
    return lines


def _grids(model: dict[str, Any]) -> str:
    """Return the grids of a model in words; "" for one grid, as in the paper and in results of earlier versions."""
    return grids_text(model.get("grids", 1), model.get("combine", ""))


def _cross_check(check: dict[str, Any]) -> str:
    largest = "no figure is defined" if check["largest"] is None else f"{check['largest']:.1e} ({check['largest_of']})"
    return (
        f"cross-check: {len(check['figures'])} figures of {check['clips']:,} of {check['of_clips']:,} clips by "
        f"sed_eval {check['sed_eval']} and psds-eval {check['psds_eval']}; largest difference: {largest}"
    )


def _ground_truth(kind: str, truth: dict[str, Any]) -> str:
    line = f"{kind}: {truth['file']}, {truth['found']:,} of {counted(truth['listed'], 'clip')} found"
    if truth["not_found"]:
        more = ", ..." if truth["not_found"] > len(truth["examples"]) else ""
        line += f" (not found: {', '.join(truth['examples'])}{more})"
    if truth.get("matched_by"):
        line += "; matched by " + ", ".join(f"{rule} ({count:,})" for rule, count in truth["matched_by"].items())
    line += f"; {truth['format']}" if truth.get("format") else ""
    return f"{line}; {truth['classes']} classes, {truth['classes_with_truth']} of them in the ground truth"


def _by_name(figures: Iterable[_Figure]) -> dict[str, dict[str, _Figure]]:
    found: dict[str, dict[str, _Figure]] = {}
    for figure in figures:
        found.setdefault(figure["name"], {})[figure["average"]] = figure
    return found


def _title(name: str, figure: _Figure) -> str:
    plain = _plain(name)
    title = _NAMES[plain]
    if plain == "segment_f1":
        title += f", {figure['segment_s']:g} s"
    if plain in ("onset_f1", "event_f1"):
        title += f", {1000 * figure['collar_s']:g} ms"
    if "_closed" in name:
        title += ", with parent classes"
    if "_ceiling" in name:
        title = f"  {title}: ground truth on the grid"
    return title


def _plain(name: str) -> str:
    """Return the name of a figure without the suffixes for the ground truth on the grid and parent classes."""
    return name.replace("_ceiling", "").replace("_closed", "")


def _cell(figure: _Figure | None) -> str:
    if figure is None:
        return ""
    text = _number(figure["name"], figure["value"])
    if figure["low"] is not None:
        text += f" [{_number(figure['name'], figure['low'])}, {_number(figure['name'], figure['high'])}]"
    return text


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "undefined"
    if any(part in name for part in _IN_PERCENT):
        return _percent(100 * value)
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.1e}"  # an error rate without a reference


def _percent(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.1f}"


def _published(figure: _Figure, model: dict[str, Any]) -> str:
    """Return the paper's figure for the same model, delay, classes and segments, in percent; "" if there is none."""
    name = figure["name"]
    tables = {"mAP": 1 if model["delay_s"] >= 10 else 2, "segment_f1": 3, "onset_f1": 3}
    if name not in tables or _grids(model) or not is_the_papers(figure, model):
        return ""
    row = paper.row(tables[name], model["arch"], model["delay_s"], model["memory"] == "on")
    return _percent(None if row is None else row.percent(name))


def is_the_papers(figure: _Figure, model: dict[str, Any]) -> bool:
    """Return True if a figure has the classes, the segments and the collar of the paper's figure of this name."""
    name = figure["name"]
    if name == "segment_f1" and not isclose(figure["segment_s"], model["delay_s"], rel_tol=_SAME_LENGTH):
        return False
    if name == "onset_f1" and figure["collar_s"] != PAPERS_COLLAR_S:
        return False
    return bool(figure.get("class_set") == ("527" if name == "mAP" else "381"))


def paper_table_text(results: list[EvaluationResult], number: int) -> list[str]:
    """Return one of the paper's Tables 1 to 3 for the terminal."""
    return table_text(paper_table(results, number))


def table_text(table: Table) -> list[str]:
    """Return a table for the terminal."""
    layout = _table(*table.columns)
    for row in table.rows:
        layout.add_row(*row)
    return [*_render(layout), *filter(None, (table.title, *table.note.split("\n")))]


def paper_table(results: list[EvaluationResult], number: int) -> Table:
    """Return one of the paper's Tables 1 to 3 with its figures and ours; models that are not in the paper follow."""
    names = ["mAP"] if number < 3 else ["segment_f1", "onset_f1"]
    ours: dict[Any, EvaluationResult] = {}
    for result in results:
        model = result["model"]
        ours[model["arch"], model["delay_s"], model["memory"] == "on", _grids(model)] = result
    costs = ("#tokens", "memory", "GFLOPs") if number < 3 else ()

    def figures(result: EvaluationResult | None, row: paper.Row | None = None) -> list[str]:
        published = [_percent(row.percent(name)) if row else "" for name in names]
        return [cell for theirs, name in zip(published, names, strict=True) for cell in (theirs, _ours(result, name))]

    rows = []
    for row in paper.TABLES[number]:
        cost = (row.tokens, row.memory, "" if row.gflops is None else f"{row.gflops:g}") if costs else ()
        evaluated = ours.pop((row.arch, row.delay_s, row.streaming, ""), None)
        rows.append((f"{row.delay_s} s", row.model, "yes" if row.streaming else "no", *cost, *figures(evaluated, row)))
    for result in ours.values():
        model = result["model"]
        if (model["delay_s"] >= 10) == (number == 1):
            name = f"{model['arch']}, memory {model['memory']}{_grids(model)}"
            streaming = "yes" if model["memory"] == "on" else "no"
            rows.append((f"{model['delay_s']:g} s", name, streaming, *[""] * len(costs), *figures(result)))
    note = f"Ours: {', '.join(result['out'] for result in results)}."
    names_of_paper = [each for each in names if any(_differs(result, each) for result in results)]
    if names_of_paper:
        shown = " and ".join(_NAMES[name] for name in names_of_paper)
        note += f"\n{shown}: ours with other classes, segments or collars than the paper's are left out."
    if number == 3:
        note += (
            "\nOurs are micro / macro by sed_eval's rule / macro with 0 for classes never found; the paper does not "
            "state which average it uses."
        )
    heads = [f"{_NAMES[name]}{each}" for name in names for each in ("", ", ours")]
    title = f"Table {number} of Dinkel et al. (2024), in percent."
    return Table(title, ("delay", "model", "streaming", *costs, *heads), tuple(rows), note, text_columns=3)


def paper_tables(results: list[EvaluationResult]) -> dict[int, Table]:
    """Return the tables of the paper for which the results have figures, by number."""
    wanted = set()
    for result in results:
        names = {figure["name"] for figure in result["figures"]}
        wanted |= {1 if result["model"]["delay_s"] >= 10 else 2} if "mAP" in names else set()
        wanted |= {3} if "segment_f1" in names else set()
    return {number: paper_table(results, number) for number in sorted(wanted)}


def _differs(result: EvaluationResult, name: str) -> bool:
    """Return True if a result has a figure of this name that is not comparable with the paper's."""
    return any(figure["name"] == name and not is_the_papers(figure, result["model"]) for figure in result["figures"])


def _ours(result: EvaluationResult | None, name: str) -> str:
    comparable = result is not None and not _differs(result, name)
    figures = _by_name(result["figures"]).get(name, {}) if result is not None and comparable else {}
    averages = ("macro",) if name == "mAP" else _AVERAGES
    return " / ".join(_number(name, figures[average]["value"]) for average in averages if average in figures)


def comparison(
    first: EvaluationResult, second: EvaluationResult, differences: Mapping[tuple[str, str], Paired]
) -> list[str]:
    """Return two results side by side, with the paired differences of their bootstrap samples.

    `satpipe.jobs.evaluate.compare` must have accepted the results.
    """
    layout = _table("", "average", printable(first["out"]), printable(second["out"]), "difference", "p")
    for figure, other in shared(first, second):
        name, average = figure["name"], figure["average"]
        values = (figure["value"], other["value"])
        difference = "" if None in values else _number(name, values[1] - values[0])
        both = differences.get((name, average))
        if difference and both:
            difference += f" [{_number(name, both.low)}, {_number(name, both.high)}]"
        layout.add_row(
            _title(name, figure), average, _cell(figure), _cell(other), difference, f"{both.p:.3f}" if both else ""
        )
    lines = _render(layout)
    rows_s = [result["model"].get("chunk_s") for result in (first, second)]
    if rows_s[0] != rows_s[1] and "strong" in first["truth"]:
        names = ", ".join(_NAMES[name] for name in ROW_FIGURES)
        lines.append(f"left out, as the rows are {rows_s[0]} s and {rows_s[1]} s long: {names}.")
    if differences:
        level, samples = first["options"]["level"], first["options"]["bootstrap"]
        lines.append(
            f"difference: second less first, with {level:.0%} intervals of {samples} bootstrap samples, paired: each "
            "has the same recordings for both. p: two-sided, not corrected for the number of figures."
        )
    return lines


def _table(*columns: str) -> layouts.Table:
    layout = layouts.Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        layout.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return layout


def _render(layout: layouts.Table) -> list[str]:
    console = Console(width=1000, color_system=None)  # no cell is cut off
    with console.capture() as capture:
        console.print(layout)
    return [line.rstrip() for line in capture.get().split("\n")[:-1]]
