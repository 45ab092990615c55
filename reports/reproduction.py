"""What `satpipe reproduce` prints and writes: the plan, and the paper's tables with our figures."""

from collections.abc import Iterable
from pathlib import Path

from satpipe.jobs.evaluate import EvaluationResult
from satpipe.jobs.reproduce.job import Reproduction
from satpipe.jobs.reproduce.pipeline import Row
from satpipe.jobs.reproduce.plan import MEASURED_ON, UNCERTAINTY
from satpipe.pipeline.storage import write_text
from satpipe.reports import paper
from satpipe.reports.evaluation import paper_table, table_text
from satpipe.reports.tables import Table
from satpipe.sat.model.config import find_config

PUBLISHED = "†"


def rows(tables: Iterable[int]) -> dict[int, list[Row]]:
    """Return the rows of tables, by number, whose models satpipe trains."""
    return {
        number: [Row(row.arch, row.delay_s) for row in paper.TABLES[number] if row.arch and find_config(row.arch)]
        for number in tables
    }


def table(results: list[EvaluationResult], number: int) -> Table:
    """Return a table of the paper with our figures; where there is none, the published one, marked."""
    found = paper_table(results, number)
    ours = [place for place, head in enumerate(found.columns) if head.endswith(", ours")]
    marked = []
    for row in found.rows:
        cells = list(row)
        for place in ours:
            if not cells[place] and cells[place - 1]:
                cells[place] = f"{cells[place - 1]} {PUBLISHED}"
        marked.append(tuple(cells))
    note = f"{found.note}\n{PUBLISHED} The published figure: this run did not make the model."
    return Table(found.title, found.columns, tuple(marked), note, found.text_columns)


def write(results: list[EvaluationResult], number: int, out: Path) -> list[str]:
    """Write a table as OUT/tableN.md and OUT/tableN.csv; return it as lines for the terminal.

    Raises:
        OutputError: The files cannot be written.
    """
    found = table(results, number)
    path = out / f"table{number}.md"
    write_text(path, found.markdown() + "\n")
    write_text(path.with_suffix(".csv"), found.csv())
    return [*table_text(found), "", f"The table is in {path} and {path.with_suffix('.csv')}"]


def plan_text(reproduction: Reproduction) -> list[str]:
    """Return the plan of a reproduction as lines for the terminal."""
    costs, hours = reproduction.costs()
    gpu, gpus = reproduction.options.gpu.upper(), reproduction.gpus
    lines = [
        (
            cost.name,
            "done" if cost.done else cost.what,
            "" if cost.gpu_hours is None or cost.done else f"{cost.gpu_hours:.1f}",
            f"{cost.disk_bytes / 1e9:,.1f}",
        )
        for cost in costs
        if not cost.evaluates
    ]
    evaluated = [cost for cost in costs if cost.evaluates]
    done = sum(cost.done for cost in evaluated)
    size = sum(cost.disk_bytes for cost in evaluated)
    lines.append(("tag and evaluate", f"{len(evaluated)} steps, {done} done", "", f"{size / 1e9:,.1f}"))
    left = [cost for cost in costs if not cost.done]
    total = (
        "all that is left",
        f"{len(left)} steps",
        f"{sum(cost.gpu_hours or 0 for cost in left):.1f}",
        f"{sum(cost.disk_bytes for cost in left) / 1e9:,.1f}",
    )
    note = (
        f"About {hours:.0f} hours on {gpus} x {gpu}, of which each trains one model at a time; without reading and "
        f"decoding clips, whose time depends on disks and processors. Hours are estimated from the speed at which the "
        f"bundled model was trained on one {MEASURED_ON.upper()} and from the operations of each stage; the true time "
        f"may be a third of it or {UNCERTAINTY} times as long. `satpipe train` prints the hours left once it runs.\n"
        f"{reproduction.free_bytes / 1e9:,.1f} GB are free for {reproduction.out}."
    )
    missing = [f"missing: {each}" for each in reproduction.missing]
    columns = ("step", "of", f"hours on one {gpu}", "disk, GB")
    return [*table_text(Table("", columns, (*lines, total), note, text_columns=2)), *missing]
