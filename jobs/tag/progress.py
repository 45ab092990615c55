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
            started = monotonic()

            def update(progress: Progress) -> None:
                text = describe(progress, monotonic() - started)
                bar.update(task, completed=progress.done_s, total=progress.found_s or None, description=text)

            yield update


class _Lines:
    def __init__(self) -> None:
        self._started = self._shown = monotonic()

    def report(self, progress: Progress) -> None:
        now = monotonic()
        if now - self._shown >= LINE_EVERY_S:
            self._shown = now
            print(describe(progress, now - self._started), file=sys.stderr, flush=True)


def describe(progress: Progress, elapsed_s: float) -> str:
    """Return a text with the length done and found, speed, time left and failures."""
    parts = [progress.text]
    if progress.tagged_s > 0 and elapsed_s > 0:
        speed = progress.tagged_s / elapsed_s
        left = timedelta(seconds=round((progress.found_s - progress.done_s) / speed))
        parts += [f"{speed:.0f} x realtime", f"{left} left"]
    if progress.failures:
        parts.append(f"{progress.failures} with a problem")
    return ", ".join(parts)
