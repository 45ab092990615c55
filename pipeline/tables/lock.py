"""The lock of an output folder: one run writes to it at a time. Object stores have no locks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from satpipe.pipeline.storage import is_remote
from satpipe.sat.errors import OutputError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if needed and hold its lock.

    Raises:
        OutputError: Another run holds the lock, or the folder cannot be written.
    """
    if is_remote(folder):
        yield
        return
    lock = _lock(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(f"{folder} is being written by another satpipe; let it finish first") from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Return True if a run holds the lock now; always False in an object store."""
    if is_remote(folder) or not folder.exists():
        return False
    lock = _lock(folder)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / ".lock", timeout=0)
