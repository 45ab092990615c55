"""`satpipe read FILE`: a command that fails while Arrow's threads read through a Python file system."""

import io
import time
from typing import Any

import click
import pyarrow as pa
import pyarrow.dataset as ds
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem
from satpipe.jobs.commands.main import cli, main
from satpipe.sat.errors import OutputError


class SlowFile(io.FileIO):
    """A file that is read slowly."""

    def read(self, size: int = -1) -> bytes:
        time.sleep(0.01)
        return super().read(size)


class SlowFiles(LocalFileSystem):
    """Files that are read slowly."""

    def _open(self, path: str, mode: str = "rb", **_: Any) -> SlowFile:
        return SlowFile(path)


@cli.command()
@click.argument("path")
def read(path: str) -> None:
    """Begin to read a file hundreds of times, and fail."""
    dataset = ds.dataset(
        [path] * 400, schema=pa.schema({"a": pa.int64()}), filesystem=PyFileSystem(FSSpecHandler(SlowFiles()))
    )
    next(dataset.to_batches(batch_readahead=64, fragment_readahead=100))
    raise OutputError("as intended")


if __name__ == "__main__":
    main()
