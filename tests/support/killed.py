"""Run commands without Ray, and kill them at a change to a file."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from satpipe.pipeline.tagging import run
from without_ray import main, without_ray


def count_changes(*arguments: object) -> int:
    """Run `satpipe tag` without Ray; return the number of changes to files: the moments for `tag_until`."""
    with _watched(None) as changes, _tagging():
        assert main("tag", *arguments) == 3  # one of the recordings is empty
    return next(changes)


def tag_until(moment: int, *arguments: object) -> int:
    """Run `satpipe tag` without Ray, and kill it at a moment as kill -9 does; return its exit status if it ends first.

    Moments are counted from 0: before and after each renaming of a file, after each row group is written, and before
    each removal of a file.
    """
    with _watched(moment), _tagging():
        return main("tag", *arguments)


def compact_until(moment: int | None, out: Path, count: Path) -> int:
    """Run `satpipe compact`, and kill it as `tag_until` does, or write the number of moments to the file `count`."""
    with _watched(moment) as changes:
        status = main("compact", out)
    count.write_text(str(next(changes)))
    return status


@contextmanager
def _tagging() -> Iterator[None]:
    with patch.object(run, "PUBLISH_RECORDINGS", 4), without_ray():
        yield  # a few recordings fill a file of the tables


@contextmanager
def _watched(moment: int | None) -> Iterator[Iterator[int]]:
    changes = count()

    def happens() -> None:
        if next(changes) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **given: (happens(), function(*args, **given))[1]

    def after(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **given: (function(*args, **given), happens())[0]

    with (
        patch.object(os, "replace", before(after(os.replace))),
        patch.object(Path, "unlink", before(Path.unlink)),
        patch.object(pq.ParquetWriter, "write_table", after(pq.ParquetWriter.write_table)),
    ):
        yield changes
