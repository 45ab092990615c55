r"""The output folder: its content, its lock, and its consistency after any interruption.

    run.json                the run that wrote the tables
    runs/RUN.json           a file for each run that wrote rows: the description of the run
    _progress.json          progress of the run, written every few seconds
    log/RUN.log             tasks, with worker and duration, a file for each run
    tags/ID.parquet         \
    scores/ID.parquet        \
    embeddings/ID.parquet    / one batch of finished recordings
    recordings/ID.parquet   /
    _staged/TASK.parquet    scores, and embeddings if wanted, of spans that are not yet in a batch

A file is written under another name and renamed when it is complete. The recordings file of a batch is written last:
with it the batch counts; without it the next run removes the rest and publishes again from the staged files. Batches
are replaced by others in one step, see `swap`.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from satpipe.pipeline.storage import is_remote, locate, output_file
from satpipe.pipeline.tables.batches import Batches
from satpipe.pipeline.tables.files import OWN, PROGRESS, RUNS, read_run, tables_of, write_run
from satpipe.pipeline.tables.schemas import SCHEMAS
from satpipe.pipeline.tables.staged import FOLDER, Staging
from satpipe.pipeline.tables.swap import SWAP
from satpipe.pipeline.tables.upgrade import upgrade
from satpipe.sat.errors import OutputError
from satpipe.sat.model.config import AUTO

LOCK_WAIT_S = 0.5  # for another process to see whether the folder is locked


class Output:
    """An output folder; `batches` are its tables, `staging` its staged files."""

    def __init__(self, folder: str | Path) -> None:
        """Name the folder, by path or URL; nothing is read or written yet."""
        self.folder = locate(folder)
        self.batches = Batches(self.folder)
        self.staging = Staging(self.folder)

    @contextmanager
    def claim(
        self,
        run: dict[str, Any],
        *,
        overwrite: bool = False,
        damaged: Iterable[str] = (),
        during: AbstractContextManager[object] | None = None,
    ) -> Iterator[None]:
        """Hold the folder for this run: no other run may write to it meanwhile.

        An object store cannot be locked: there the later run takes over, and the earlier one stops at its next batch.

        Args:
            run: Content of `run.json`; its `identity` must be that of the existing tables.
            overwrite: Remove the existing tables.
            damaged: Batches to remove: from `find_damage`, and those that lack a table that is wanted now.
            during: Entered as soon as the folder is claimed, before its tables are put in order.

        Raises:
            OutputError: Another run holds the folder, it cannot be written, or it has tables of another identity.
        """
        with self.locked():
            if overwrite and self.run() is not None:
                self.batches.clear()
                self.staging.clear()
                (self.folder / "run.json").unlink()
            damaged, earlier = set(damaged), self.run()
            self._check(run["identity"], earlier)
            if earlier is not None:
                upgrade(self.folder, earlier, damaged)
            self.note(run)
            with during or nullcontext():
                for name in (*tables_of(run), "recordings", FOLDER):
                    if not is_remote(self.folder):
                        (self.folder / name).mkdir(exist_ok=True)
                self.batches.drop(damaged)
                self.batches.recover()
                self.staging.recover()
                yield

    def _check(self, identity: dict[str, Any], run: dict[str, Any] | None) -> None:
        """Check that the existing tables, described by `run.json`, are of the same model and options."""
        if run is None:
            strange = [name for name in SCHEMAS if any((self.folder / name).glob("*"))]
            if strange:
                raise OutputError(
                    f"{self.folder} contains {' and '.join(strange)} but no run.json: choose another folder"
                )
            return
        there = {"grids": 1, "combine": "geometric"} | run.get("identity", {})  # earlier versions had one grid
        if there.get("precision") == AUTO:  # the run ended before it chose one, and made no tables
            there["precision"] = identity.get("precision")
        differ = [
            f"{key} {there.get(key)!r}, now {identity[key]!r}" for key in identity if there.get(key) != identity[key]
        ]
        if differ:
            raise OutputError(
                f"{self.folder} was made with another {'; '.join(differ)}. Choose another folder, or --overwrite it"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if needed and hold its lock; object stores have no locks."""
        if is_remote(self.folder):
            yield
            return
        lock = self._lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=LOCK_WAIT_S, poll_interval=LOCK_WAIT_S / 10)
        except Timeout:
            raise OutputError(f"{self.folder} is being written by another satpipe; let it finish first") from None
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot be written: {error.strerror or error}; -o DIR or SATPIPE_OUT=DIR names another"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool | None:
        """Return True if a run holds the lock now; None if that cannot be known, as in an object store."""
        if is_remote(self.folder):
            return None
        lock = self._lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # of another user, or on a disk that is mounted read-only
            return None
        lock.release()
        return False

    def _lock(self) -> FileLock:
        return FileLock(self.folder / ".lock")

    def refuse_others(self) -> None:
        """Make sure that the folder is an output folder, does not exist or is empty.

        Raises:
            OutputError: It contains other files, or is not a folder.
        """
        if self.run() is None and self.folder.exists():
            files = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else [self.folder.name]
            strange = sorted(set(files) - {".lock", "log", PROGRESS, FOLDER, SWAP, OWN, RUNS, *SCHEMAS})
            if strange:
                raise OutputError(
                    f"{self.folder} is not an output folder of satpipe and is not empty ({strange[0]}, ...): name "
                    "another one with -o DIR or SATPIPE_OUT=DIR"
                )

    def run(self) -> dict[str, Any] | None:
        """Return the content of `run.json`, or None if the file does not exist."""
        return read_run(self.folder)

    def note(self, run: dict[str, Any]) -> None:
        """Write `run.json`."""
        write_run(self.folder, run)

    def finish(self) -> None:
        """Remove the staged files after everything is published."""
        self.batches.recover()
        self.staging.clear()

    @contextmanager
    def log(self, name: str) -> Iterator[Path]:
        """Provide a file to write a log to, line by line; in an object store it appears at the end."""
        path = self.folder / "log" / name
        if is_remote(path):
            with output_file(path, self.folder) as temporary:
                yield temporary
        else:
            path.parent.mkdir(exist_ok=True)
            yield path

    def last_log(self) -> str:
        """Return the last line of the latest log, "" if there is none."""
        logs = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.name)
        lines = logs[-1].read_text(encoding="utf-8").splitlines() if logs else []
        return lines[-1] if lines else ""
