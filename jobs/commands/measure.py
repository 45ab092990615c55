"""Commands that measure speed, cost and quality."""

from pathlib import Path
from typing import Any

import click
from satpipe.jobs.commands.shared import FILE, log, options, say
from satpipe.jobs.options.measure import (
    BenchmarkOptions,
    BundledFiguresOptions,
    ConsistencyRunOptions,
    Device,
    GridsBenchmarkOptions,
    SynthOptions,
)

group = click.Group("Measure")


@group.command()
@options(SynthOptions)
def synth(**given: Any) -> int:
    """Make sound scenes with known labels, to evaluate on.

    Clips are mixed over backgrounds; strong and weak labels are written next to the audio.
    """
    from satpipe.jobs import synth

    say(*synth.text(synth.synth(SynthOptions(**given)), given["out"]))
    return 0


class Benchmarks(click.Group):
    """The benchmarks; arguments without the name of one are those of `tag`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Insert the name if it is missing."""
        if args and args[0] not in {*self.commands, *context.help_option_names}:
            args = ["tag", *args]
        return super().parse_args(context, args)


@group.group(cls=Benchmarks)
def benchmark() -> None:
    """Measure speed, memory and quality, as JSON.

    `satpipe benchmark RECORDINGS -o FILE` is short for `satpipe benchmark tag`. `python -m satpipe.reports.readme`
    writes the figures of `reports/*.json` into README and documentation.
    """


_RESULT = click.option("-o", "--out", required=True, type=FILE, help="JSON file to write.")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_RECORDINGS = click.argument("recordings", type=click.Path(exists=True, path_type=Path))
_CORPUS = click.argument("corpus", type=_FOLDER)


@benchmark.command("tag")
@_RECORDINGS
@_RESULT
@options(BenchmarkOptions)
def benchmark_tag(recordings: Path, out: Path, hours: float, device: Device) -> int:
    """Measure the speed of tagging, compared with a plain loop.

    RECORDINGS are repeated until they are --hours long.
    """
    from satpipe.jobs.benchmark import common, tag

    common.write(tag.benchmark(recordings, hours, log, device), out)
    return 0


@benchmark.command("stream")
@_RESULT
def benchmark_stream(out: Path) -> int:
    """Measure the delay of `satpipe stream`.

    The delay is the time from the last sample of a chunk to the line printed for it.
    """
    from satpipe.jobs.benchmark import common, stream

    common.write(stream.benchmark(log), out)
    return 0


@benchmark.command("export")
@_RECORDINGS
@_RESULT
def benchmark_export(recordings: Path, out: Path) -> int:
    """Measure size and speed of exported models."""
    from satpipe.jobs.benchmark import common, export

    common.write(export.benchmark(str(recordings)), out)
    return 0


@benchmark.command("evaluate")
@_RESULT
def benchmark_evaluate(out: Path) -> int:
    """Compare `satpipe evaluate` with sed_eval.

    Measures time and memory on a synthetic set of the size of AudioSet's strong labels.
    """
    from satpipe.jobs.benchmark import common, evaluate

    common.write(evaluate.benchmark(log), out)
    return 0


@benchmark.command("train")
@_RESULT
def benchmark_train(out: Path) -> int:
    """Measure the speed and memory of training steps."""
    from satpipe.jobs.benchmark import common, train

    common.write(train.benchmark(log), out)
    return 0


@benchmark.command("soak")
@_RECORDINGS
@_RESULT
@click.option(
    "--hours", type=click.FloatRange(0.01), default=24.0, show_default=True, help="Length of the audio in hours."
)
def benchmark_soak(recordings: Path, out: Path, hours: float) -> int:
    """Check that memory does not grow over hours.

    RECORDINGS are repeated, and tagged by `tag` and `stream`. Exit code 1: memory or the number of open files grew.
    """
    from satpipe.jobs.benchmark import common, soak

    figures = soak.benchmark(recordings, hours, log)
    common.write(figures, out)
    problems = soak.problems(figures)
    for problem in problems:
        log(problem)
    return 1 if problems else 0


@benchmark.command("taggers")
@_CORPUS
@_RESULT
@click.option("--teacher", required=True, help="EfficientAT's weights.")
@click.option("--work", type=Path, default="build/taggers", show_default=True, help="Folder for scenes and tables.")
def benchmark_taggers(corpus: Path, out: Path, teacher: str, work: Path) -> int:
    """Compare EfficientAT with the bundled model.

    EfficientAT with several delays and the bundled model tag synthesised scenes. CORPUS contains audio/ and
    manifest.tsv (path, hint, split).
    """
    from satpipe.jobs.benchmark import common, taggers
    from satpipe.jobs.train.bundled import Corpus

    common.write(taggers.benchmark(Corpus(corpus), teacher, work, log), out)
    return 0


@benchmark.command("grids")
@click.argument("foreground", metavar="FOLDER|TABLE")
@_RESULT
@options(GridsBenchmarkOptions)
def benchmark_grids(foreground: str, out: Path, **given: Any) -> int:
    """Measure accuracy and cost of `tag --grids`.

    FOLDER|TABLE are clips of single sounds, as for `synth --foreground`. The bundled models tag scenes mixed of them on
    one grid and on several. Each threshold is the best one on other scenes.
    """
    from satpipe.jobs.benchmark import common, grids

    common.write(grids.benchmark(foreground, GridsBenchmarkOptions(**given), log), out)
    return 0


@benchmark.command("own-classes")
@click.argument("labels", metavar="FOLDER", type=_FOLDER)
@_RESULT
def benchmark_own_classes(labels: Path, out: Path) -> int:
    """Measure own classes learned from few to many examples.

    FOLDER has a sub-folder of recordings for each class. The accuracy without examples is measured if the sub-folders
    have the names of AudioSet classes; `;` separates several in one name.
    """
    from satpipe.jobs.benchmark import common, own_classes

    common.write(own_classes.benchmark(labels, log), out)
    return 0


@benchmark.command("bundled")
@_CORPUS
@_RESULT
@options(BundledFiguresOptions)
def benchmark_bundled(corpus: Path, out: Path, **given: Any) -> int:
    """Measure how well the bundled model tags.

    Run it after `satpipe train-bundled` with the same CORPUS. `-o sat/data/bundled_figures.json` keeps the figures of
    other models in the file; `python -m satpipe.reports.model_card` writes them into the model's card.
    """
    import json

    from satpipe.jobs.benchmark import bundled, common
    from satpipe.jobs.train.bundled import Corpus

    known = json.loads(out.read_text()) if out.exists() else {}
    common.write(bundled.benchmark(Corpus(corpus), BundledFiguresOptions(**given), known, log), out)
    return 0


@benchmark.command("consistency")
@click.argument("sounds", nargs=-1, required=True, type=FILE)
@click.option("-o", "--out", "target", required=True, help="Folder of the figure and its data.")
@options(ConsistencyRunOptions)
def benchmark_consistency(sounds: tuple[Path, ...], target: str, **given: Any) -> int:
    """Compare long sounds with and without memory.

    Each of SOUNDS is a recording of one steady sound; it is repeated until it is --minutes long, and tagged. Scores
    over time are drawn and summarised.
    """
    from satpipe.jobs.benchmark import consistency
    from satpipe.jobs.commands.results import print_consistency

    options = ConsistencyRunOptions(**given)
    outs = consistency.tagged(sounds, options, log)
    return print_consistency([str(out) for out in outs], options.labels, target)


@group.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--delay-s",
    "--delay",
    "delays_s",
    type=float,
    multiple=True,
    help="Seconds of audio per chunk, by default 10, 2 and 1. Repeatable.",
)
@click.option("-o", "--out", type=FILE, help="JSON file to write.")
def profile(models: tuple[str, ...], delays_s: tuple[float, ...], out: Path | None) -> int:
    """Measure the cost of models per chunk.

    The cost is printed next to the paper's Tables 1 and 2. MODEL is a configuration of `satpipe models`, or a model as
    for `tag --model`, with random weights unless weights are given. By default all models and other taggers are
    measured.
    """
    from satpipe.jobs.benchmark import common, profile
    from satpipe.reports import profile_tables as pages
    from satpipe.reports.tables import markdown_text

    figures = profile.profile(models, delays_s, log)
    if out:
        common.write(figures, out)
    say(*markdown_text(pages.tables(figures)).removesuffix("\n").split("\n"))
    return 0
