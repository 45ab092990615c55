"""Commands that measure speed, cost and quality."""

from pathlib import Path
from typing import Any

import click
from satpipe.jobs.commands.shared import FILE, log, options
from satpipe.jobs.options.measure import BenchmarkOptions, Device, SynthOptions

group = click.Group("Measure")


@group.command()
@options(SynthOptions)
def synth(**given: Any) -> int:
    """Make sound scenes with known labels, to evaluate on.

    Clips are mixed over backgrounds; strong and weak labels are written next to the audio.
    """
    from satpipe.jobs import synth

    click.echo(synth.text(synth.synth(SynthOptions(**given)), given["out"]))
    return 0


@group.command()
@click.argument("recordings", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", required=True, type=FILE, help="JSON file to write.")
@options(BenchmarkOptions)
def benchmark(recordings: Path, out: Path, hours: float, device: Device) -> int:
    """Measure the speed of tagging, compared with a plain loop.

    RECORDINGS are repeated until they have the wanted length.
    """
    from satpipe.jobs.benchmark import tag

    tag.write(tag.benchmark(recordings, hours, log, device), out)
    return 0


@group.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--delay-s", "--delay", "delays_s", type=float, multiple=True, help="By default 10, 2 and 1. Repeatable.")
@click.option("-o", "--out", type=FILE, help="JSON file to write.")
def profile(models: tuple[str, ...], delays_s: tuple[float, ...], out: Path | None) -> int:
    """Measure the cost of models per chunk.

    Prints it next to the paper's Tables 1 and 2. MODEL is a configuration of `satpipe models`, or a model as for
    `tag --model`; without weights it has random ones. By default all models and other taggers are measured.
    """
    from satpipe.jobs.benchmark import profile, tag
    from satpipe.reports import profile_tables as pages
    from satpipe.reports.tables import markdown_text

    figures = profile.profile(models, delays_s, log)
    if out:
        tag.write(figures, out)
    click.echo(markdown_text(pages.tables(figures)), nl=False)
    return 0
