"""Commands that work on the tables of an output folder."""

from collections.abc import Sequence
from typing import Any

import click
from satpipe.jobs.commands.shared import OUT, SOME_FAILED, log, named_out, options, say, with_lists
from satpipe.jobs.options.results import (
    AUDIOSET,
    CompareOptions,
    ConsistencyOptions,
    EvaluateOptions,
    EventOptions,
    ReportOptions,
)

group = click.Group("Results")
OUTS = click.argument("outs", nargs=-1, required=True, metavar="OUT...")


@group.command()
@OUT
@click.option(
    "-o",
    "--to",
    metavar="FILE|DIR",
    help="Table (.parquet, .csv, .tsv) or folder of files to write; by default events.parquet or events_FORMAT in OUT.",
)
@click.option(
    "--format",
    type=click.Choice(["parquet", "csv", "tsv", "audacity", "raven", "textgrid", "jams"]),
    help="The first three: one table. Others: a file for each recording; with raven, one for all if -o ends in .txt.",
)
@options(EventOptions)
def events(*, out: str, to: str | None, format: str | None, **given: Any) -> int:
    """Turn scores into sound events.

    Writes a table, or files for Audacity, Raven, Praat and ELAN. An event is a run of chunks whose scores all reach
    --low and at least one of which reaches --threshold. Events that are close are then merged, and short ones dropped.
    """
    from satpipe.jobs import events

    say(*events.text(events.write(out, EventOptions(**with_lists(given)), to, format)))
    return 0


@group.command()
@OUT
@click.option("-o", "--out", "target", metavar="FILE", help="The page; by default report.html in OUT.")
@options(ReportOptions)
@click.option("--pictures", metavar="DIR", help="Also write the maps as PNG and SVG.")
def report(*, out: str, target: str | None, pictures: str | None, **given: Any) -> int:
    """Write a page to view, filter and listen to the results.

    The page is one HTML file that needs no network.
    """
    from satpipe.jobs import report_data
    from satpipe.reports import maps, page

    found = report_data.collect(out, ReportOptions(**with_lists(given)))
    for note in found.notes:
        log(f"note: {note}")
    say(page.write(found, target or f"{out.rstrip('/')}/{page.NAME}"))
    if pictures:
        names, left_out = maps.pictures(found, pictures)
        say(f"{pictures}: {', '.join(names)}")
        if left_out:
            log(f"note: {left_out}")
    return 0


@group.command()
@click.argument("outs", nargs=-1, metavar="[OUT]...")
@options(EvaluateOptions)
@click.option(
    "-o",
    "--out",
    "folder",
    metavar="DIR",
    help="Folder for evaluate.json, classes.csv and curves.parquet; with several OUT, it gets a folder for each.",
)
@click.option("--table1", is_flag=True, help="Print the paper's Table 1 with its figures and yours.")
@click.option("--table2", is_flag=True, help="Print the paper's Table 2 with its figures and yours.")
@click.option("--table3", is_flag=True, help="Print the paper's Table 3 with its figures and yours.")
@click.option("--compare", nargs=2, metavar="A B", help="Show two results written with -o side by side.")
def evaluate(
    *,
    outs: tuple[str, ...],
    folder: str | None,
    table1: bool,
    table2: bool,
    table3: bool,
    compare: tuple[str, str] | None,
    **given: Any,
) -> int:
    """Compare OUT with ground truth.

    The figures are printed next to those of the paper. Without --strong and --weak, AudioSet's labels of its evaluation
    set are used, if they fit the names of the recordings.
    """
    from satpipe.jobs import evaluate
    from satpipe.reports import evaluation

    if compare:
        first, second = map(evaluate.read, compare)
        evaluate.compare(first, second)
        samples = evaluate.read_samples(compare[0]), evaluate.read_samples(compare[1])
        say(*evaluation.comparison(first, second, evaluate.paired(first, second, samples)), "")
        return 0
    outs = _folders(given, outs)
    results = []
    for out, place in zip(outs, evaluate.folders(folder, outs), strict=True):
        result = evaluate.evaluate(out, **with_lists(given))
        if place:
            evaluate.write(result, place)
        say(*evaluation.result_text(result))
        results.append(result)
    for number, wanted in enumerate((table1, table2, table3), 1):
        if wanted:
            say(*evaluation.paper_table_text(results, number))
    return 0


@group.command()
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@click.option("-o", "--out", "target", required=True, metavar="DIR", help="Folder of the figures and tables.")
@options(ReportOptions, "labels")
def report_evaluation(results: tuple[str, ...], target: str, labels: tuple[str, ...] | None) -> int:
    """Draw evaluation results, and fill in the paper's tables.

    RESULT is a folder written by `satpipe evaluate -o`. With --labels, only the curves of these classes are drawn.
    """
    from satpipe.jobs import evaluate
    from satpipe.reports import evaluation_pictures
    from satpipe.sat.labels import choose, separated

    wanted = choose(separated(labels)) if labels else None
    read = [evaluate.read(result) for result in results]
    for result, found, place in zip(results, read, evaluate.folders(target, results), strict=True):
        names = evaluation_pictures.pictures(found, evaluate.read_curves(result), place, wanted)
        say(f"{place}: {', '.join(names)}")
    for path in evaluation_pictures.write_tables(read, target):
        say(path)
    return 0


@group.command()
@click.argument("first", metavar="OUT")
@click.argument("second", metavar="OUT")
@options(CompareOptions)
@click.option("-o", "--to", metavar="FILE", help="Also write the figures to a table, .csv, .tsv or .parquet.")
def compare(*, first: str, second: str, to: str | None, **given: Any) -> int:
    """Show what another model or other options change.

    The two OUT contain the same recordings. For each class, prints the time in which both have found it, or only one.
    Exit code 3: some recordings are not compared, since one OUT does not have them, or not in the same length.
    """
    from satpipe.jobs import compare
    from satpipe.pipeline.tables.table_files import table_format

    if to:
        table_format(to)
    found = compare.compare(first, second, CompareOptions(**with_lists(given)))
    say(*compare.text(found))
    if to:
        compare.write(found, to)
        say(to)
    return 0 if found.complete else SOME_FAILED


@group.command()
@OUTS
@options(ConsistencyOptions)
@click.option("-o", "--out", "target", metavar="DIR", help="Folder of the figure and its data.")
def report_consistency(outs: tuple[str, ...], labels: tuple[str, ...], target: str | None, threshold: float) -> int:
    """Compare scores over time between several OUT.

    Each OUT contains the same recordings, tagged with a different model or different options.
    """
    return print_consistency(outs, labels, target, threshold)


def print_consistency(
    outs: Sequence[str],
    labels: Sequence[str],
    target: str | None,
    threshold: float = ConsistencyOptions.threshold,
) -> int:
    """Compare folders, print the figures, and write them to a folder."""
    from satpipe.jobs import consistency
    from satpipe.reports import consistency_pictures as pages
    from satpipe.sat.labels import choose, separated

    found = consistency.consistency(outs, choose(separated(labels)), threshold)
    notes = list(found.notes)
    if target:
        consistency.write(found, target)
        notes += filter(None, [pages.picture(found, target)])
    for note in notes:
        say(f"note: {note}")
    say(*pages.table(found.figures, threshold).markdown().split("\n"))
    return 0


def _folders(given: dict[str, Any], outs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders to evaluate; a folder right after --strong or --weak is one of them, not a file of labels."""
    from satpipe.pipeline.storage import locate

    for kind in ("strong", "weak"):
        if given[kind] not in (None, AUDIOSET) and (locate(given[kind]) / "run.json").is_file():
            outs, given[kind] = outs if given[kind] in outs else (given[kind], *outs), AUDIOSET
    return outs or (named_out(),)
