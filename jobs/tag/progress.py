"""Show the progress of a run: as a bar on a terminal, else as a line every few seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from satpipe.pipeline.tagging.progress import Progress

LINE_EVERY_S = 10.0


@contextmanager
def shown(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Provide a function to call with the progress from time to time."""
    if quiet:
        yield lambda progress: None
    elif not sys.stderr.isatty():
        yield _Lines().report
    else:
        import rich.progress as bars
        from rich.console import Console

        columns = (bars.BarColumn(bar_width=20), bars.TaskProgressColumn(), bars.TextColumn("{task.description}"))
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None)

            def update(progress: Progress) -> None:
                total = progress.found_s or None
                bar.update(task, completed=progress.done_s, total=total, description=describe(progress))

            yield update


class _Lines:
    def __init__(self) -> None:
        self._shown = monotonic()

    def report(self, progress: Progress) -> None:
        now = monotonic()
        if now - self._shown >= LINE_EVERY_S:
            self._shown = now
            print(describe(progress), file=sys.stderr, flush=True)


def describe(progress: Progress) -> str:
    """Return a text with the length done and found, speed, time left and failures."""
    parts = [progress.text]
    if progress.left_s is not None:
        parts += [f"{progress.rate:.0f} x realtime", f"{timedelta(seconds=round(progress.left_s))} left"]
    if progress.failures:
        parts.append(f"{progress.failures} with a problem")
    return ", ".join(parts)
