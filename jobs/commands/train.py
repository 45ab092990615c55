"""Commands that prepare training data and train models."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from satpipe.jobs.commands.shared import SOME_FAILED, log, options, progress, say
from satpipe.jobs.options.reproduce import ReproduceOptions
from satpipe.jobs.options.tag import ClusterOptions
from satpipe.jobs.options.train import BundledOptions, LabelOptions, PrepareOptions
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.sat.printable import counted

group = click.Group("Train")


@group.command()
@click.argument("folder")
@options(PrepareOptions)
def prepare(folder: str, **given: Any) -> int:
    """Make a training set from the audio in FOLDER.

    The set consists of Parquet shards of clips, with labels from --table or --segments. The same command continues a
    run that was stopped. Exit code 3: some clips are missing or cannot be read.
    """
    from satpipe.jobs.train import messages, prepare

    done = prepare.prepare(folder, report=progress("shards"), **given)
    say(*messages.prepared(done))
    return SOME_FAILED if done.problems or done.listing.missing else 0


@group.command()
@click.argument("shards")
@options(LabelOptions)
@options(SegmentOptions)
def psl(*, shards: str, out: str, teacher: str | None, strong: str | None, **given: Any) -> int:
    """Label a training set with a teacher, or with your labels.

    SHARDS is a folder written by `satpipe prepare`. The teacher labels each segment of its clips once; stage sat trains
    on these pseudo strong labels. With --strong, the labels of a segment are the classes that occur in it.
    """
    from satpipe.jobs.train import own_labels, prepare
    from satpipe.sat.errors import ConfigError

    cut = SegmentOptions(**{field.name: given.pop(field.name) for field in fields(SegmentOptions)})
    if teacher and not strong:
        labelled, missing = prepare.label(shards, out, teacher, cut, **given, report=progress("shards"))
    elif strong and not teacher:
        labelled, missing = own_labels.label_with_own(shards, out, strong, cut)
    else:
        raise ConfigError("name either a --teacher or your --strong labels")
    say(f"{out} contains the labels of {counted(labelled, 'segment')}")
    if missing:
        say(f"{teacher or strong} does not contain {len(missing):,} of the clips, such as {missing[0]}")
    return SOME_FAILED if missing else 0


@group.command()
@click.argument("stage", type=click.Choice(["mae", "full", "sat"]))
@click.argument("config")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG. Repeatable.")
@click.option("--resume", is_flag=True, help="Continue the run in the folder of --out.")
@options(ClusterOptions, "address")
def train(*, stage: str, config: str, out: Path, overrides: tuple[str, ...], resume: bool, address: str | None) -> int:
    """Train one stage of the paper's training pipeline.

    mae: a masked autoencoder; full: a full-context model; sat: a streaming model. CONFIG is a YAML file, or the name of
    one that comes with satpipe.
    """
    from satpipe.jobs.train import job, messages
    from satpipe.jobs.train.config import load_config

    settings = load_config(stage, config, overrides)
    report = {"report": lambda line: log(messages.metrics(line)), "note": log}
    path = job.train(settings, out, address=address, resume=resume, **report)
    next_step = (
        f"start stage full from it with --set init={path}"
        if stage == "mae"
        else f"use it with `satpipe tag --model {path}`"
    )
    say(f"the model is in {path}; {next_step}")
    return 0


@group.command()
@click.argument(
    "tables", nargs=-1, required=True, type=click.Choice(["table1", "table2", "table3"]), metavar="TABLE..."
)
@options(ReproduceOptions)
def reproduce(tables: tuple[str, ...], **given: Any) -> int:
    """Train the models of the paper's tables, and evaluate them.

    TABLE is table1, table2 or table3. Training sets, models and tables are made in the folder of --out; the same
    command continues a run that was stopped. Our figures are written next to the published ones, as Markdown and CSV.
    """
    from satpipe.jobs.reproduce import job
    from satpipe.reports import reproduction

    chosen = ReproduceOptions(**given)
    found = job.declare(reproduction.rows(sorted({int(table[-1]) for table in tables})), chosen)
    if chosen.plan:
        say(*reproduction.plan_text(found))
        return 0
    for number, results in found.run(log).items():
        say(*reproduction.write(results, number, found.out))
    return 0


@group.command()
@click.argument("corpus", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options(BundledOptions)
def train_bundled(corpus: Path, **given: Any) -> int:
    """Train the model that comes with satpipe.

    CORPUS contains audio/, manifest.tsv (path, split) and teacher_scores.parquet. The same command continues a run that
    was stopped. The recipe `bundled` is meant for a GPU, `sat_tiny_sequences` for two processors.
    """
    from satpipe.jobs.train import bundled, messages

    options = BundledOptions(**given)
    path = bundled.train_bundled(bundled.Corpus(corpus), options, lambda line: log(messages.metrics(line)))
    say(f"the model is in {path}")
    return 0


@group.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--package", "packages", multiple=True, help="Use only this package. Repeatable.")
def extra_audio(out: Path, packages: tuple[str, ...]) -> int:
    """Download more training audio from Debian packages.

    Writes clips and manifest.tsv to OUT. Requires apt-get with the package lists of Debian 12. Exit code 3: some clips
    could not be made.
    """
    from satpipe.jobs.train import extra_audio

    problems = extra_audio.make(out, packages)
    for problem in problems:
        log(problem)
    say(f"{out / extra_audio.MANIFEST} lists the clips")
    return SOME_FAILED if problems else 0


@group.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--clips", type=click.IntRange(min=1), default=600, show_default=True, help="Number of clips of 10 s.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same clips.")
def formula_audio(out: Path, clips: int, seed: int) -> int:
    """Make more training audio by formula: wind, engines, bells.

    Writes clips and manifest.tsv to OUT. They have no labels; the teacher gives them.
    """
    from satpipe.jobs.train import extra_audio, formula_audio

    formula_audio.make(out, clips, seed)
    say(f"{out / extra_audio.MANIFEST} lists the clips")
    return 0
