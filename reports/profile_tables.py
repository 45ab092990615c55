"""Tables of the cost of models in the layout of the paper's Tables 1 and 2, with the paper's figures next to ours."""

from typing import Any

from satpipe.reports import paper
from satpipe.reports.tables import Table

ROUNDING = 0.05  # of the paper's figures
FAR = 1.1  # figures that differ from the paper's by a larger factor are listed below the table
_COLUMNS = (
    "model", "parameters, M", "tokens", "paper", "memory, MB", "paper", "GFLOPs", "paper", "GFLOPs, all",
    "MB alive", "MB alive in batch", "x realtime", "x realtime in batch",
)  # fmt: skip
NOTE = (
    "A multiply-add counts as two operations. Memory: twice the size of the outputs of all linear, convolution and "
    "normalisation layers. GFLOPs: linear layers and convolutions, for a chunk with an empty memory. Both reproduce "
    "the paper's figures. GFLOPs, all: also the products of attention and the memory's keys and values. MB alive: peak "
    "size of all tensors except parameters and input, for one chunk and for a batch of `satpipe tag` (number of chunks "
    "in brackets)."
)


def tables(figures: dict[str, Any]) -> list[Table]:
    """Return the figures of `satpipe profile` as tables, by delay as in the paper."""
    rows = figures["models"]
    titles = {
        "Table 1: 10 s": [row for row in rows if row["delay_s"] >= 10],
        "Table 2: 2 s": [row for row in rows if row["delay_s"] == 2],
        "Table 2: 1 s": [row for row in rows if row["delay_s"] == 1],
        "Other delays": [row for row in rows if row["delay_s"] < 10 and row["delay_s"] not in (1, 2)],
    }
    made = [
        Table(title, _COLUMNS, tuple(map(_cells, wanted)), _far(wanted)) for title, wanted in titles.items() if wanted
    ]
    machine = figures["machine"]
    where = f"One thread of {machine['processor']}, float32, torch {figures['torch']}."
    return [*made[:-1], Table(made[-1].title, _COLUMNS, made[-1].rows, f"{made[-1].note} {NOTE} {where}".strip())]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    published = _published(row)
    delay = "" if row["delay_s"] in (10, 2, 1) else f", {row['delay_s']:g} s"
    return (
        row["model"] + delay,
        f"{row['parameters'] / 1e6:.1f}",
        "" if row["tokens"] is None else f"{row['tokens']:,}",
        published.tokens if published else "",
        f"{_memory_mb(row):.3g}",
        published.memory if published else "",
        f"{_gflops(row):.3g}",
        f"{published.gflops:g}" if published and published.gflops else "",
        f"{row['later_chunk']['flops'] / 1e9:.3g}",
        f"{row['later_chunk']['peak_bytes'] / 1e6:.3g}",
        f"{row['batch_bytes'] / 1e6:.3g} ({row['batch_chunks']})",
        f"{row['x_realtime']:,.3g}",
        f"{row['batch_x_realtime']:,.3g}",
    )


def _published(row: dict[str, Any]) -> paper.Row | None:
    return paper.row(1 if row["delay_s"] >= 10 else 2, row["model"], row["delay_s"], row["memory"])


def _memory_mb(row: dict[str, Any]) -> float:
    """Return the memory as the paper seems to count it: the outputs of layers, plus as much again for gradients."""
    return 2 * row["first_chunk"]["layer_bytes"] / 1e6  # type: ignore[no-any-return]


def _gflops(row: dict[str, Any]) -> float:
    return row["first_chunk"]["linear_flops"] / 1e9  # type: ignore[no-any-return]


def _far(rows: list[dict[str, Any]]) -> str:
    """List the figures that differ from the paper's by more than rounding."""
    far = []
    for row in rows:
        published = _published(row)
        if published is None or not published.gflops:
            continue
        number, unit = published.memory.split()
        pairs = {
            "GFLOPs": (_gflops(row), published.gflops),
            "memory": (_memory_mb(row), float(number) * {"M": 1, "G": 1000}[unit]),
        }
        for what, (ours, theirs) in pairs.items():
            if abs(ours - theirs) > ROUNDING and not 1 / FAR < ours / theirs < FAR:
                far.append(f"{row['model']}, {what}: {ours / theirs:.2f} times the paper's.")
    return " ".join(far)
