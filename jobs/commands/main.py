"""The command table. Each command is one function; what it does is in the module of its job."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from satpipe.jobs.commands.models import models

NOT_FINISHED, SOME_NOT_TAGGED = 1, 3


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="satpipe")
def cli() -> None:
    """Tag long audio recordings with Streaming Audio Transformers, into Parquet."""


cli.add_command(models)


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--out", required=True, help="Output folder, or s3://bucket/folder.")
@click.option(
    "--model",
    default="bundled",
    show_default=True,
    metavar="NAME|PATH|NAME:WEIGHTS",
    help="See `satpipe models`; ast, beats, efficientat, htsat or a tagger of yours, with its weights.",
)
@click.option("--arch", metavar="NAME", help="Configuration of the model, where its file does not tell.")
@click.option(
    "--cut",
    type=click.Choice(["gapless", "script"]),
    default="gapless",
    show_default=True,
    help="gapless: every sample is seen; script: as the published inference script.",
)
@click.option(
    "--memory",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="off: each chunk alone, with nothing carried over from the one before.",
)
@click.option(
    "--delay-s",
    "--delay",
    type=float,
    help="Seconds that a full-context model or a peer reads at a time; by default its own.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Least score of a row in the tags table.",
)
@click.option(
    "--top-k",
    type=click.IntRange(1, 527),
    default=10,
    show_default=True,
    help="Most rows of a chunk in the tags table.",
)
@click.option("--scores/--no-scores", default=True, show_default=True, help="Write all 527 scores of each chunk.")
@click.option("--channels", default="mix", show_default=True, metavar="mix|split|N", help="N counts from 1.")
@click.option(
    "--workers", type=click.IntRange(1), help="Workers at the same time; by default one per CPU; up to 8 share a GPU."
)
@click.option("--address", help="A running Ray cluster; by default Ray is started here for the run.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
@click.option(
    "--span-s",
    type=click.FloatRange(10),
    default=600.0,
    show_default=True,
    help="Seconds of a long recording that one worker tags in one go; changes no score.",
)
@click.option("--max-batch-memory", metavar="SIZE", help="Most that a worker's model may take for a batch, as 256MB.")
@click.option("--time-zone", metavar="ZONE", help="Of times that name none, such as Europe/Berlin; by default UTC.")
@click.option(
    "--time-pattern",
    metavar="PATTERN",
    help="Where names have the time, such as `rec-%d%m%y-%H%M*`; by default found.",
)
@click.option(
    "--times", metavar="CSV", help="Columns recording, time[, end_time]; goes before what names and headers say."
)
@click.option(
    "--clock-marks", metavar="CSV", help="Columns recordings, recorded_time, true_time: how a recorder's clock went."
)
@click.option("--join", is_flag=True, help="Read files of a recorder that follow each other as one recording.")
@click.option(
    "--join-gap-s",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Seconds by which a file may begin later or earlier than the one before ended.",
)
@click.option("--prune", is_flag=True, help="Remove the rows of recordings that are not there any more.")
@click.option("--retry-failed", is_flag=True, help="Tag again what was not tagged from start to end.")
@click.option("--overwrite", is_flag=True, help="Remove the tables that are in the output folder first.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def tag(*, dry_run: bool, quiet: bool, **given: Any) -> int:
    """Tag recordings: files, folders (searched recursively) or glob patterns.

    The same command continues a run that was stopped. Exit code 0: all recordings tagged; 3: finished, but some
    recordings are not tagged from start to end (see the recordings table); 1: not finished.
    """
    from satpipe.jobs.tag import job as tag
    from satpipe.jobs.tag import messages as text
    from satpipe.jobs.tag import progress
    from satpipe.jobs.tag.options import TagOptions
    from satpipe.jobs.tag.plan import plan as make_plan

    options = TagOptions(**given)
    plan = make_plan(options)
    if not quiet:
        click.echo(text.plan(plan, prune=options.prune))
    if dry_run:
        return 0
    with progress.shown(quiet=quiet) as report:
        summary = tag.tag(options, plan, report)
    if not quiet:
        click.echo(text.summary(summary, options.out))
    return 0 if summary.complete else SOME_NOT_TAGGED


def _as_in_tag(*names: str) -> Callable[[click.Command], click.Command]:
    """Give a command the options of `tag` that have these names."""

    def add(command: click.Command) -> click.Command:
        command.params += [param for param in tag.params if param.name in names]
        return command

    return add


@_as_in_tag("model", "arch", "cut", "memory", "delay_s", "precision")
@cli.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option(
    "--format", "encoding", metavar="NAME", help="Of raw samples: s16le, f32le, ...; else WAV, or s16le from -."
)
@click.option("--rate-hz", type=click.IntRange(1), help="Of raw samples, by default 16000, or of a device.")
@click.option("--channels", type=click.IntRange(1), help="The same, by default 1; the mean of all is tagged.")
@click.option(
    "--live", is_flag=True, help="Input that could wait is made while it is read: tell the time, drop if slow."
)
@click.option(
    "--idle-s",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="A file that does not grow for so long has ended; a URL or device that gives nothing is lost.",
)
@click.option(
    "--reconnect-s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="How long a live URL that is lost is tried again.",
)
@click.option(
    "--max-lag-s",
    type=click.FloatRange(0, min_open=True),
    default=4.0,
    show_default=True,
    help="Live sound that waits longer for the model is dropped.",
)
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Least score of a tag.")
@click.option("--top-k", type=click.IntRange(1, 527), default=10, show_default=True, help="Most tags of a chunk.")
@click.option("--scores", is_flag=True, help="Print all 527 scores of each chunk, too.")
def stream(**given: Any) -> int:
    """Tag live sound: print a line of JSON for each chunk as soon as it is heard.

    SOURCE is - for standard input (the default), device:NAME, the URL of an RTSP or HTTP stream, or a WAV file that is
    still written. Several share the model. Ctrl-C ends it. Exit code 3: a source broke off.
    """
    from satpipe.jobs import stream

    return 0 if stream.stream(stream.StreamOptions(**given)) else SOME_NOT_TAGGED


@cli.command()
@click.argument("out")
def status(out: str) -> int:
    """Show how far the job of the folder OUT is, running or finished, and what went wrong."""
    from satpipe.jobs.tag import messages as text
    from satpipe.jobs.tag import status

    click.echo(text.status(status.status(out)))
    return 0


@cli.command()
@click.argument("model", metavar="MODEL")
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--format", type=click.Choice(["onnx", "torchscript"]), default="onnx", show_default=True)
@click.option("--int8", is_flag=True, help="Weights of 8 bits: a third of the size; scores change a little.")
@click.option("--arch", metavar="NAME", help="Configuration of the model, where its file does not tell.")
@click.option("--delay-s", type=float, help="Seconds that a full-context model reads at a time.")
@click.option("--check", multiple=True, metavar="INPUT", help="Recordings to compare its scores on; repeatable.")
def export(**given: Any) -> int:
    """Write MODEL, a name or a path as for `tag --model`, as one file that runs without satpipe.

    It takes the waveform of one chunk and the memory, and gives scores and the memory for the next chunk.
    """
    from satpipe.jobs.export import job as export

    options = export.ExportOptions(**given)
    click.echo(export.text(export.export(options), options))
    return 0


@cli.command()
@click.argument("recordings", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSON file.")
@click.option("--hours", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Length of the recording.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Of `satpipe tag`."
)
def benchmark(recordings: Path, out: Path, hours: float, device: str) -> int:
    """Measure how fast tagging is here, beside the plain loop; RECORDINGS are repeated to the length wanted."""
    from satpipe.jobs.benchmark import tag as benchmark

    benchmark.write(benchmark.benchmark(recordings, hours, lambda line: click.echo(line, err=True), device), out)
    return 0


@cli.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--delay-s", "--delay", "delays_s", type=float, multiple=True, help="By default 10, 2 and 1; repeatable.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file.")
def profile(models: tuple[str, ...], delays_s: tuple[float, ...], out: Path | None) -> int:
    """Measure what models cost for a chunk, beside the paper's Tables 1 and 2; by default all models and peers.

    MODEL is a configuration of `satpipe models`, or what `tag --model` takes; without weights it has random ones.
    """
    from satpipe.jobs.benchmark import profile
    from satpipe.jobs.benchmark import tag as benchmark
    from satpipe.reports import profile_tables as pages
    from satpipe.reports.tables import markdown_text

    figures = profile.profile(models, delays_s, lambda line: click.echo(line, err=True))
    if out:
        benchmark.write(figures, out)
    click.echo(markdown_text(pages.tables(figures)), nl=False)
    return 0


@cli.command()
@click.option("-o", "--out", required=True, metavar="DIR", help="Output folder, new or of an earlier `synth`.")
@click.option(
    "--foreground",
    required=True,
    metavar="FOLDER|TABLE",
    help="Clips of single sounds: sub-folders named after labels, or a table with path, label[, onset_s, offset_s].",
)
@click.option("--background", metavar="FOLDER", help="Recordings to put them over; by default white noise.")
@click.option("--scenes", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--length-s", type=click.FloatRange(0), default=10.0, show_default=True, help="Seconds of each.")
@click.option("--events-per-minute", type=click.FloatRange(0), default=18.0, show_default=True, help="Mean.")
@click.option(
    "--snr-db", type=float, nargs=2, default=(6.0, 20.0), show_default=True, help="Events over background, from and to."
)
@click.option(
    "--background-db", type=click.FloatRange(-80, -10), default=-50.0, show_default=True, help="Its level, dBFS."
)
@click.option("--max-polyphony", type=click.IntRange(1), help="Most events at a time; by default any number.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Another one, other scenes."
)
@click.option("--format", type=click.Choice(["wav", "flac"]), default="wav", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), help="Scenes made at the same time; by default one per CPU, up to 16."
)
@click.option("--overwrite", is_flag=True, help="Replace the scenes of an earlier `synth`.")
def synth(**given: Any) -> int:
    """Make sound scenes from clips over backgrounds, with their strong and weak truth, to try `evaluate` on."""
    from satpipe.jobs import synth

    click.echo(synth.text(synth.synth(synth.SynthOptions(**given)), given["out"]))
    return 0


@cli.command()
@click.argument("outs", nargs=-1, metavar="OUT...")
@click.option("--weak", metavar="CSV", help="Weak labels: AudioSet's eval_segments.csv, or a table with a header.")
@click.option("--strong", metavar="TSV|FOLDER", help="Strong labels: AudioSet's, DCASE's, Audacity's or Raven's files.")
@click.option(
    "-o", "--out", "folder", metavar="DIR", help="Write evaluate.json and classes.csv there; of several OUT, below it."
)
@click.option("--mapping", metavar="CSV", help="Columns recording and clip, where names do not tell which is which.")
@click.option(
    "--classes", default="381", show_default=True, metavar="381|407|416|527|FILE", help="Classes of strong labels."
)
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What becomes of labels that AudioSet lacks.",
)
@click.option(
    "--threshold",
    default="0.5",
    show_default=True,
    metavar="S|CSV",
    help="Least score of what counts as found, or a table with one for each class.",
)
@click.option("--tune", metavar="FILE", help="Clips to choose thresholds of classes on; the others are reported.")
@click.option("--segment-s", type=click.FloatRange(0, min_open=True), help="Segments; by default the model's chunk.")
@click.option("--collar-s", type=click.FloatRange(0), default=0.2, show_default=True, help="Collar of event metrics.")
@click.option(
    "--offset-fraction",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Collar of an offset, as part of the event, if that is more.",
)
@click.option("--median-filter", type=click.IntRange(1), default=1, show_default=True, help="Chunks; 1: none.")
@click.option("--min-s", type=click.FloatRange(0), default=0.0, show_default=True, help="Least length of events found.")
@click.option("--psds-thresholds", type=click.IntRange(0), default=50, show_default=True, help="0: no PSDS.")
@click.option(
    "--bootstrap", type=click.IntRange(0), default=200, show_default=True, help="Samples for intervals; 0: none."
)
@click.option(
    "--level", type=click.FloatRange(0.5, 1, max_open=True), default=0.95, show_default=True, help="Of the intervals."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--table1", is_flag=True, help="Lay out the paper's Table 1, its figures and ours.")
@click.option("--table2", is_flag=True, help="The same of Table 2.")
@click.option("--table3", is_flag=True, help="The same of Table 3.")
@click.option("--compare", nargs=2, metavar="A B", help="Show two cards written with -o side by side.")
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
    """Score the tables of OUT against true labels, and print the figures beside the paper's."""
    from satpipe.jobs import evaluate
    from satpipe.reports import evaluation

    if compare:
        first, second = map(evaluate.read, compare)
        evaluate.compare(first, second)
        click.echo(evaluation.comparison(first, second))
        return 0
    if not outs:
        raise click.UsageError("there is nothing to evaluate: name an output folder of `satpipe tag`")
    cards = []
    for out, place in zip(outs, evaluate.folders(folder, outs), strict=True):
        card = evaluate.evaluate(out, evaluate.EvaluateOptions(**given))
        if place:
            evaluate.write(card, place)
        click.echo(evaluation.card(card))
        cards.append(card)
    for number, wanted in enumerate((table1, table2, table3), 1):
        if wanted:
            click.echo(evaluation.table(cards, number))
    return 0


@cli.command()
@click.argument("outs", nargs=-1, required=True, metavar="OUT...")
@click.option(
    "-o",
    "--out",
    "target",
    metavar="FILE|DIR",
    help="The page, by default report.html in OUT; else the folder of the pictures and tables.",
)
@click.option(
    "--consistency",
    "consistent",
    multiple=True,
    metavar="LABEL[,LABEL]",
    help="Compare score over time of the same recordings in several OUT; repeatable.",
)
@click.option(
    "--evaluation", is_flag=True, help="OUT are cards of `satpipe evaluate -o`: draw them, and fill the paper's tables."
)
@click.option(
    "--labels",
    multiple=True,
    metavar="LABEL[,LABEL]",
    help="Only these classes, under:NAME for a class and all below it; of a card, those whose curves are drawn.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="Score from which a label counts as found; the page lets others be chosen.",
)
@click.option("--recordings", multiple=True, metavar="PATTERN", help="Only these recordings, as in `site1/*`.")
@click.option("--time-zone", default="UTC", show_default=True, metavar="NAME", help="As in Europe/Berlin.")
@click.option(
    "--audio/--no-audio", default=True, show_default=True, help="Short pieces of the recordings to listen to."
)
@click.option("--pictures", metavar="DIR", help="The maps as PNG and SVG too.")
def report(
    *,
    outs: tuple[str, ...],
    target: str | None,
    consistent: tuple[str, ...],
    evaluation: bool,
    labels: tuple[str, ...],
    threshold: float,
    recordings: tuple[str, ...],
    time_zone: str,
    audio: bool,
    pictures: str | None,
) -> int:
    """Report on what is in the folder OUT: a page that needs no network, to look at, filter and listen to.

    With --consistency or --evaluation, OUT may be several, and the report is pictures and tables.
    """
    if consistent and evaluation:
        raise click.UsageError("--consistency and --evaluation are two reports: ask for one")
    if consistent:
        return _report_consistency(outs, target, consistent, threshold)
    if evaluation:
        if target is None:
            raise click.UsageError("--evaluation draws pictures: -o DIR says where they go")
        return _report_evaluation(outs, target, labels)
    if len(outs) > 1:
        raise click.UsageError("a page is about one folder: name one OUT, or give --consistency or --evaluation")
    given = (labels, recordings, threshold, time_zone, audio)
    return _report_page(outs[0], target, pictures, *given)


def _report_page(
    out: str,
    target: str | None,
    pictures: str | None,
    labels: tuple[str, ...],
    recordings: tuple[str, ...],
    threshold: float,
    time_zone: str,
    audio: bool,
) -> int:
    from satpipe.jobs import report_data
    from satpipe.reports import maps, page
    from satpipe.sat.labels import separated

    options = report_data.ReportOptions(separated(labels) or None, recordings or None, threshold, time_zone, audio)
    found = report_data.collect(out, options)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(page.write(found, target or f"{out.rstrip('/')}/{page.NAME}"))
    if pictures:
        names, left_out = maps.pictures(found, pictures)
        click.echo(f"{pictures}: {', '.join(names)}")
        if left_out:
            click.echo(f"note: {left_out}", err=True)
    return 0


def _report_consistency(outs: tuple[str, ...], target: str | None, labels: tuple[str, ...], threshold: float) -> int:
    from satpipe.jobs import consistency
    from satpipe.reports import consistency_pictures as pages
    from satpipe.sat.labels import choose, separated

    found = consistency.consistency(outs, choose(separated(labels)), threshold)
    notes = list(found.notes)
    if target:
        consistency.write(found, target)
        notes += filter(None, [pages.picture(found, target)])
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(pages.table(found.figures, threshold).markdown())
    return 0


def _report_evaluation(cards: tuple[str, ...], target: str, labels: tuple[str, ...]) -> int:
    from satpipe.jobs import evaluate
    from satpipe.reports import evaluation_pictures
    from satpipe.sat.labels import choose, separated

    wanted = choose(separated(labels)) if labels else None
    read = [evaluate.read(card) for card in cards]
    for card, found, place in zip(cards, read, evaluate.folders(target, cards), strict=True):
        names = evaluation_pictures.pictures(found, evaluate.read_curves(card), place, wanted)
        click.echo(f"{place}: {', '.join(names)}")
    for path in evaluation_pictures.write_tables(read, target):
        click.echo(path)
    return 0


@cli.command()
@click.argument("out")
@click.option(
    "-o",
    "--to",
    metavar="FILE|DIR",
    help="By default events.parquet or events.csv in OUT, or a folder there.",
)
@click.option(
    "--threshold",
    default="0.5",
    show_default=True,
    metavar="S|CSV",
    help="What the highest score of an event reaches, or a table with that of each class.",
)
@click.option("--low", type=click.FloatRange(0, 1), help="What all its scores reach; by default 0.6 of the threshold.")
@click.option("--min-s", type=click.FloatRange(0), default=0.0, show_default=True, help="Least length of an event.")
@click.option(
    "--merge-gap-s",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Events of a class become one if no more than this lies between them.",
)
@click.option(
    "--labels",
    multiple=True,
    metavar="LABEL",
    help="A name, a mid, or under:NAME for a class and all below it; may be given several times.",
)
@click.option(
    "--format",
    type=click.Choice(["parquet", "csv", "audacity", "raven", "textgrid", "jams"]),
    help="One table, or a file for each recording; by default parquet, or csv if FILE ends so.",
)
def events(*, out: str, to: str | None, format: str | None, labels: tuple[str, ...], **given: Any) -> int:
    """Make sound events of the scores in OUT, as a table or as files for Audacity, Raven, Praat and ELAN.

    An event is a run of chunks whose scores reach --low, and one of them --threshold; then gaps are closed, then short
    events are left out.
    """
    from satpipe.jobs import events

    click.echo(events.text(events.write(out, events.EventOptions(labels or None, **given), to, format)))
    return 0


_WORKERS = click.option("--workers", type=click.IntRange(1), help="At the same time; by default one per CPU.")
_ADDRESS = click.option("--address", help="A running Ray cluster; by default Ray is started here for the run.")
_WHERE = click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Only rows of the table that have it.")


@cli.command()
@click.argument("folder")
@click.option("-o", "--out", required=True, help="Folder of the training set.")
@click.option("--table", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CSV or TSV of labels.")
@click.option(
    "--segments", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One of AudioSet's CSVs."
)
@_WHERE
@click.option("--clips-per-shard", type=click.IntRange(1), default=500, show_default=True)
@_WORKERS
@_ADDRESS
def prepare(folder: str, out: str, *, where: tuple[str, ...], **given: Any) -> int:
    """Make a training set of the audio in FOLDER: Parquet shards of clips, with labels where a table gives them.

    The same command continues a run that was stopped. Exit code 3: some clips are missing or cannot be read.
    """
    from satpipe.jobs.train import messages as text
    from satpipe.jobs.train import prepare

    done = prepare.prepare(folder, out, where=_pairs(where), report=_count("shards"), **given)
    click.echo(text.prepared(done))
    return SOME_NOT_TAGGED if done.problems or done.listing.missing else 0


@cli.command()
@click.argument("shards")
@click.option("-o", "--out", required=True, help="Folder of the labels.")
@click.option("--teacher", required=True, help="A model as for `tag`, or a Parquet table of scores.")
@click.option(
    "--piece-s", type=click.FloatRange(0.5), default=4.0, show_default=True, help="Two chunks of the student."
)
@click.option("--hop-s", type=click.FloatRange(0.1), default=2.0, show_default=True)
@click.option("--top-k", type=click.IntRange(1, 527), default=527, show_default=True, help="Most classes of a piece.")
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.003, show_default=True, help="Less is left out.")
@_WHERE
@_WORKERS
@_ADDRESS
def psl(
    shards: str, out: str, *, teacher: str, where: tuple[str, ...], workers: int | None, address: str | None, **cut: Any
) -> int:
    """Have a teacher label the pieces of the training set SHARDS once: pseudo strong labels."""
    from satpipe.jobs.train import prepare
    from satpipe.pipeline.training_data.teachers import SegmentOptions

    options = SegmentOptions(**cut)
    pieces, lacking = prepare.label(
        shards, out, teacher, options, where=_pairs(where), workers=workers, address=address, report=_count("shards")
    )
    click.echo(f"{pieces:,} pieces are labelled in {out}")
    if lacking:
        click.echo(f"{len(lacking):,} clips are not in {teacher}, such as {lacking[0]}")
    return SOME_NOT_TAGGED if lacking else 0


@cli.command()
@click.argument("stage", type=click.Choice(["mae", "full", "sat"]))
@click.argument("config")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Instead of what CONFIG says.")
@click.option("--resume", is_flag=True, help="Continue the run that is in the folder.")
@_ADDRESS
def train(*, stage: str, config: str, out: Path, overrides: tuple[str, ...], resume: bool, address: str | None) -> int:
    """Train one STAGE of the paper's pipeline; CONFIG is a YAML file, or the name of one that comes with satpipe."""
    from satpipe.jobs.train import job as train
    from satpipe.jobs.train import messages as text
    from satpipe.jobs.train.config import load_config

    settings = load_config(stage, config, overrides)

    def report(line: dict[str, Any]) -> None:
        click.echo(text.metrics(line), err=True)

    path = train.train(settings, out, address=address, resume=resume, report=report)
    next_step = (
        "--set init= starts stage full from it" if stage == "mae" else f"`satpipe tag --model {path}` tags with it"
    )
    click.echo(f"the model is in {path}; {next_step}")
    return 0


def _pairs(where: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in where:
        column, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"--where {text}: it takes COLUMN=VALUE")
        pairs.append((column, value))
    return tuple(pairs)


def _count(what: str) -> Callable[[int, int], None]:
    return lambda done, total: click.echo(f"{done} of {total} {what}", err=True)


def main() -> None:
    """Run a command; an error that is meant for the person becomes one line and an exit code."""
    from satpipe.sat.errors import SatpipeError

    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SatpipeError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        code = NOT_FINISHED
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; the same command continues where this one was", err=True)
        code = NOT_FINISHED
    sys.exit(code)
