"""Evaluation cards as text: the figures beside the paper's, the paper's tables, two cards side by side."""

from collections.abc import Iterable
from typing import Any

from rich import table as layouts
from rich.console import Console
from satpipe.jobs.evaluate.result import EvaluationResult
from satpipe.reports import paper
from satpipe.reports.tables import Table

_NAMES = {
    "mAP": "mAP",
    "auc": "AUC",
    "d_prime": "d'",
    "lwlrap": "lwlrap",
    "segment_f1": "segment-F1",
    "onset_f1": "onset-F1",
    "event_f1": "event-F1",
    "error_rate": "error rate (segments)",
    "onset_error_rate": "error rate (onsets)",
    "event_error_rate": "error rate (events)",
    **{
        f"{way}_{rate}": f"{rate} ({way}s)" for way in ("segment", "onset", "event") for rate in ("precision", "recall")
    },
    "psds1": "PSDS1",
    "psds2": "PSDS2",
    "psds1_no_variance": "PSDS1 without variance penalty",
}
_AVERAGES = {"micro": "micro", "macro": "macro", "macro_zero": "macro, never found = 0"}
_IN_PERCENT = ("mAP", "lwlrap", "_f1", "precision", "recall", "psds")
_IN_CARD_ONLY = ("precision", "recall")


def card(card: EvaluationResult) -> str:
    """Say what was evaluated and how, then each figure, with the paper's beside where it has one."""
    model = card["model"]
    lines = [
        f"{card['out']}: {model['arch']}, {model['delay_s']:g} s delay, memory {model['memory']}, {model['cut']}, "
        f"{model['precision']} (sha256 {model['sha256'][:12]})"
    ]
    for kind, truth in card["truth"].items():
        lines.append(_truth(kind, truth))
    lines += [f"note: {note}" for note in card["notes"]]
    table = _table("", *_AVERAGES.values(), "paper")
    published = False
    for name, figures in _by_name(card["figures"]).items():
        if _plain(name).endswith(_IN_CARD_ONLY):
            continue
        cells = [_cell(figures.get(average)) for average in _AVERAGES]
        theirs = _published(name, model)
        published = published or bool(theirs)
        table.add_row(_title(name, next(iter(figures.values()))), *cells, theirs)
    lines.append(_render(table))
    if published:
        lines.append(f"paper: Dinkel et al. (2024), the published {model['arch']} on AudioSet's evaluation set.")
    if any(figure["low"] is not None for figure in card["figures"]):
        level, samples = card["options"]["level"], card["options"]["bootstrap"]
        lines.append(f"In brackets: {level:.0%} intervals of {samples} bootstrap samples of the recordings.")
    return "\n".join(lines)


def _truth(kind: str, truth: dict[str, Any]) -> str:
    line = f"{kind}: {truth['file']}, {truth['found']:,} of {truth['listed']:,} clips found"
    if truth["not_found"]:
        more = ", ..." if truth["not_found"] > len(truth["examples"]) else ""
        line += f" (not found: {', '.join(truth['examples'])}{more})"
    return f"{line}; {truth['classes']} classes, {truth['classes_with_truth']} of them in the truth"


def _by_name(figures: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for figure in figures:
        found.setdefault(figure["name"], {})[figure["average"]] = figure
    return found


def _title(name: str, figure: dict[str, Any]) -> str:
    plain = _plain(name)
    title = _NAMES[plain]
    if plain == "segment_f1":
        title += f", {figure['segment_s']:g} s"
    if plain in ("onset_f1", "event_f1"):
        title += f", {1000 * figure['collar_s']:g} ms"
    if "_closed" in name:
        title += ", truth with parents"
    if "_ceiling" in name:
        title = f"  ceiling of {title}"
    return title


def _plain(name: str) -> str:
    """What the figure is of, whatever truth and tagger."""
    return name.replace("_ceiling", "").replace("_closed", "")


def _cell(figure: dict[str, Any] | None) -> str:
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
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.1e}"  # an error rate over nothing true


def _published(name: str, model: dict[str, Any]) -> str:
    """The paper's figure for the same model under the same delay, in percent, or nothing."""
    if name == "mAP":
        row = paper.row(1 if model["delay_s"] >= 10 else 2, model["arch"], model["delay_s"], model["memory"] == "on")
        return "" if row is None or row.map_percent is None else f"{row.map_percent:.1f}"
    if name in ("segment_f1", "onset_f1"):
        row = paper.row(3, model["arch"], model["delay_s"], model["memory"] == "on")
        value = None if row is None else row.segment_f1_percent if name == "segment_f1" else row.onset_f1_percent
        return "" if value is None else f"{value:.1f}"
    return ""


def table(cards: list[EvaluationResult], number: int) -> str:
    """Lay out one of the paper's Tables 1 to 3 for the terminal."""
    made = paper_table(cards, number)
    layout = _table(*made.columns)
    for row in made.rows:
        layout.add_row(*row)
    return f"{_render(layout)}{made.title}\n{made.note}"


def paper_table(cards: list[EvaluationResult], number: int) -> Table:
    """Lay out one of the paper's Tables 1 to 3, its figures and ours; what the paper has no row for comes last."""
    names = ["mAP"] if number < 3 else ["segment_f1", "onset_f1"]
    ours: dict[Any, EvaluationResult] = {_key(card): card for card in cards}
    costs = ("#tokens", "memory", "GFLOPs") if number < 3 else ()
    heads = [f"{_NAMES[name]}{each}" for name in names for each in ("", ", ours")]
    rows = []
    for row in paper.TABLES[number]:
        card = ours.pop((row.arch, row.delay_s, row.streaming), None)
        published = [row.map_percent] if number < 3 else [row.segment_f1_percent, row.onset_f1_percent]
        cells = [
            cell
            for name, value in zip(names, published, strict=True)
            for cell in ("" if value is None else f"{value:.1f}", _ours(card, name))
        ]
        cost = (row.tokens, row.memory, "" if row.gflops is None else f"{row.gflops:g}") if number < 3 else ()
        rows.append((f"{row.delay_s} s", row.model, "yes" if row.streaming else "no", *cost, *cells))
    for card in ours.values():
        model = card["model"]
        if (model["delay_s"] >= 10) == (number == 1):
            name = f"{model['arch']}, memory {model['memory']}"
            cells = [cell for each in names for cell in ("", _ours(card, each))]
            streaming = "yes" if model["memory"] == "on" else "no"
            rows.append((f"{model['delay_s']:g} s", name, streaming, *[""] * len(costs), *cells))
    note = f"Ours: {', '.join(card['out'] for card in cards)}."
    if number == 3:
        note += (
            "\nOurs are micro / macro as sed_eval averages / macro with classes never found as 0; the paper does "
            "not say which its are."
        )
    title = f"Table {number} of Dinkel et al. (2024), in percent."
    return Table(title, ("delay", "model", "streaming", *costs, *heads), tuple(rows), note, text_columns=3)


def paper_tables(cards: list[EvaluationResult]) -> list[Table]:
    """Lay out those of the paper's tables that there are figures for."""
    figures = [{figure["name"] for figure in card["figures"]} for card in cards]
    whole = [card["model"]["delay_s"] >= 10 for card in cards]
    wanted = {
        1: any("mAP" in names and long for names, long in zip(figures, whole, strict=True)),
        2: any("mAP" in names and not long for names, long in zip(figures, whole, strict=True)),
        3: any("segment_f1" in names for names in figures),
    }
    return [paper_table(cards, number) for number, needed in wanted.items() if needed]


def _key(card: EvaluationResult) -> tuple[str, float, bool]:
    return card["model"]["arch"], card["model"]["delay_s"], card["model"]["memory"] == "on"


def _ours(card: EvaluationResult | None, name: str) -> str:
    figures = {} if card is None else _by_name(card["figures"]).get(name, {})
    if name == "mAP":
        return _number(name, figures["macro"]["value"]) if figures else ""
    return " / ".join(_number(name, figures[average]["value"]) for average in _AVERAGES if average in figures)


def comparison(first: EvaluationResult, second: EvaluationResult) -> str:
    """Two cards side by side; the caller has made sure that they are comparable."""
    layout = _table("", "average", first["out"], second["out"], "difference")
    right = {(figure["name"], figure["average"]): figure for figure in second["figures"]}
    for figure in first["figures"]:
        other = right.get((figure["name"], figure["average"]))
        if other is None:
            continue
        name, values = figure["name"], (figure["value"], other["value"])
        difference = "" if None in values else _number(name, values[1] - values[0])
        layout.add_row(_title(name, figure), figure["average"], _cell(figure), _cell(other), difference)
    return _render(layout)


def _table(*columns: str) -> layouts.Table:
    layout = layouts.Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        layout.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return layout


def _render(layout: layouts.Table) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(layout)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
