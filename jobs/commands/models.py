"""Commands for models and labels: list, download, export."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from satpipe.jobs.commands.shared import options, say
from satpipe.jobs.options.models import ExportOptions

group = click.Group("Models and labels")


@group.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models, or download one.

    The list shows size, published mAP and licence, and which models are present.
    """
    if context.invoked_subcommand is None:
        _print_models()


@models.command()
@click.argument("name")
def pull(name: str) -> None:
    """Download the published checkpoint NAME into the cache.

    The cache is in your home folder unless SATPIPE_CACHE names another folder; SATPIPE_HUB_URL selects a mirror.
    """
    from satpipe.sat.weights import download, hub

    with _shown_progress(name) as progress:
        path = hub.pull(name, progress)
    say(f"{name} is in {path}; sha256 {download.recorded(path)['sha256']}")


class Labels(click.Group):
    """Commands on labels; arguments without the name of one are a search."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """List all classes if there are no arguments."""
        return super().parse_args(context, args or ["list"])

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named, else the one that lists classes."""
        return super().resolve_command(context, args if args[0] in self.commands else ["list", *args])


@group.group(cls=Labels, subcommand_metavar="[SEARCH] | COMMAND")
def labels() -> None:
    """List classes and groups, or download strong labels.

    The list has the index, the mid and the name of each class, the classes above it in the ontology, and the groups
    that it belongs to. SEARCH is part of the name of a class or group, or a mid.
    """


@labels.command("list", hidden=True)
@click.argument("search", nargs=-1)
def list_labels(search: tuple[str, ...]) -> None:
    """List classes and groups."""
    from satpipe.reports.label_list import label_list

    say(*label_list(" ".join(search)))


@labels.command("pull")
def pull_labels() -> None:
    """Download the strong labels of AudioSet's evaluation set into the cache.

    `satpipe evaluate --strong` finds them there. The cache is in your home folder unless SATPIPE_CACHE names another
    folder; SATPIPE_LABELS_URL selects a mirror. Google publishes the labels under CC BY 4.0.
    """
    from satpipe.jobs.ground_truth import audioset

    with _shown_progress(audioset.STRONG) as progress:
        path = audioset.pull(progress)
    say(f"AudioSet's strong labels are in {path}")


@group.command()
@click.argument("model", metavar="MODEL")
@options(ExportOptions)
def export(**given: Any) -> int:
    """Write a model as one file that runs without satpipe.

    MODEL is a name or a path as for `tag --model`. From the waveform of one chunk and the memory, the file computes the
    scores and the memory for the next chunk.
    """
    from satpipe.jobs.export import job

    options = ExportOptions(**given)
    say(*job.text(job.export(options), options))
    return 0


def _print_models() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from satpipe.sat.weights import download, hub
    from satpipe.sat.weights.external import external_taggers

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("mAP", justify="right")
    table.add_column("licence")
    table.add_column("present")
    for row in hub.list_models():
        table.add_row(
            row.name if row.name == row.config else f"{row.name} ({row.config})",
            f"{row.parameters / 1e6:.1f} M",
            "none" if row.map_percent is None else f"{row.map_percent:.2f}",
            row.licence,
            "yes" if row.present else "no",
        )
    console = Console()
    console.print(table)
    console.print(
        "mAP: as published, on AudioSet's evaluation set.\n"
        f"`satpipe models pull NAME` downloads a published model from {hub.RECORD_URL} to {download.cache_folder()}\n"
        f"Other taggers, named with their weights as NAME:WEIGHTS: {', '.join(external_taggers())}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


@contextmanager
def _shown_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a download: as a bar on a terminal, else as a line from time to time."""
    if not sys.stdout.isatty():
        yield _Lines(name)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=None)

        def advance(done_bytes: int, total_bytes: int | None) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield advance


class _Lines:
    """Prints a line after each tenth of a download, or every 10 MB if the size is unknown."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._step = 0

    def __call__(self, done_bytes: int, total_bytes: int | None) -> None:
        step = 10 * done_bytes // total_bytes if total_bytes else done_bytes // 10_000_000
        if step != self._step:
            self._step = step
            of_total = f" of {total_bytes / 1e6:.1f}" if total_bytes else ""
            say(f"{self._name}: {done_bytes / 1e6:.1f}{of_total} MB")
