"""Replace batches by others, as one step: a kill cannot leave it half done.

    _swap/TABLE/ID.parquet    files of the new batches, until all are written
    _swap/swap.json           names of the new batches and of those that they replace

Until `swap.json` is written, nothing has changed. From then on the exchange is decided: the new files are moved to
their places, `run.json` lists them, and the old ones are removed, `swap.json` last. If the process is killed on the
way, readers tell from `swap.json` which files count, and the next process that claims the folder does the rest.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satpipe.pipeline.storage import errors, is_remote, move, write_text
from satpipe.pipeline.tables.files import OWN, REPAIR, is_ours, own_names, read_run, tables_of, write_run
from satpipe.pipeline.tables.schemas import CHUNK_TABLES
from satpipe.sat.errors import OutputError

SWAP = "_swap"
"""Folder of the files of new batches."""
_DECIDED = "swap.json"


@dataclass(frozen=True)
class Exchange:
    """Batches that replace others.

    Attributes:
        new: Their names.
        old: Names of the batches that they replace.
    """

    new: frozenset[str] = frozenset()
    old: frozenset[str] = frozenset()

    def ignored(self, there: Collection[str]) -> frozenset[str]:
        """Return the batches that do not count, given the names of all files of the recordings table."""
        return self.old if self.new <= set(there) else self.new

    def applied(self, batches: Collection[str]) -> set[str]:
        """Return the batches of a folder after the exchange, given those before it."""
        return (set(batches) - self.old) | self.new


class Swap:
    """An exchange of batches in an output folder; the new ones are written below `place` first."""

    def __init__(self, folder: Path) -> None:
        """Name the output folder; nothing is read or written yet."""
        self._folder = folder
        self.place = folder / SWAP
        self._run_id = ""

    def prepare(self) -> None:
        """Make the folders of the new files, and remember the run that the tables are of."""
        self._run_id = _run_id(self._folder)
        if not is_remote(self.place):
            for kind in kinds(self._folder):
                (self.place / kind).mkdir(parents=True, exist_ok=True)

    def commit(self, new: Sequence[str], old: Sequence[str]) -> None:
        """Exchange batches.

        Args:
            new: Names of batches whose files are below `place`.
            old: Names of the batches that they replace.

        Raises:
            OutputError: The folder cannot be written, or another run has taken it over.
        """
        if new and _run_id(self._folder) != self._run_id:
            raise OutputError(f"{self._folder} was taken over by another run")
        write_text(self.place / _DECIDED, json.dumps({"new": sorted(new), "old": sorted(old)}) + "\n")
        self.recover()

    def recover(self) -> None:
        """Finish an exchange that is decided; undo one that is not."""
        exchange = decided(self._folder)
        if exchange.new or exchange.old:
            first, *others = kinds(self._folder)
            for kind in (*others, first):  # with its recordings file a batch counts
                for name in sorted(exchange.new & _names(self.place / kind)):
                    move(self.place / kind / name, self._folder / kind / name)
            run = read_run(self._folder)
            if run and "batches" in run:
                write_run(self._folder, run | {"batches": sorted(exchange.applied(run["batches"]))})
            for kind in (first, *others):
                for name in sorted(exchange.old):
                    (self._folder / kind / name).unlink(missing_ok=True)
        self.clear()

    def clear(self) -> None:
        """Remove what is left of the new files."""
        for kind in kinds(self._folder):
            for path in (self.place / kind).glob("*"):
                path.unlink(missing_ok=True)
        (self.place / _DECIDED).unlink(missing_ok=True)
        if not is_remote(self.place) and self.place.exists():
            for path in sorted(self.place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            self.place.rmdir()


def kinds(folder: Path) -> tuple[str, ...]:
    """Return the folders in which a batch may have a file, that of `recordings` first."""
    return ("recordings", *CHUNK_TABLES, *(f"{OWN}/{name}" for name in own_names(folder)))


def decided(folder: Path) -> Exchange:
    """Return the exchange that is decided but not finished; an empty one if there is none.

    Raises:
        OutputError: It cannot be read.
    """
    path = folder / SWAP / _DECIDED
    try:
        content = json.loads(path.read_text())
        return Exchange(frozenset(content["new"]), frozenset(content["old"]))
    except FileNotFoundError:
        return Exchange()
    except errors(ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read: {error}") from error


def counted_files(folder: Path) -> list[Path]:
    """Return the files of the recordings table that count, sorted by name."""
    while True:
        exchange = decided(folder)
        paths = {path.name: path for path in (folder / "recordings").glob("*.parquet")}
        if decided(folder) == exchange:  # or another process exchanged batches meanwhile
            ignored = exchange.ignored(paths)
            return [paths[name] for name in sorted(paths) if name not in ignored]


def unaccounted(folder: Path, run: Mapping[str, Any], counted: Set[str]) -> Iterator[tuple[Path, str]]:
    """Yield files of batches that are missing, and files of no batch, each with the problem.

    Args:
        folder: The output folder.
        run: Content of `run.json`. Until the run has finished, files of no batch are what it is writing.
        counted: Names of the files in `recordings`.
    """
    exchange = decided(folder)
    batches = set(run.get("batches", counted)) if "finished" in run else set(counted)
    if exchange.new <= counted:
        batches = exchange.applied(batches)  # `run.json` may not list them yet
    for name in sorted(batches - counted):
        yield folder / "recordings" / name, f"is missing: {REPAIR}"
    for name in sorted(counted - batches):
        yield folder / "recordings" / name, f"does not belong to this folder: {REPAIR}"
    for table in CHUNK_TABLES:
        there = {path.name for path in (folder / table).glob("*.parquet") if not path.name.startswith(".")}
        for name in sorted(counted - there) if table in tables_of(run) else ():
            yield folder / table / name, f"is missing: {REPAIR}"
        for name in sorted(there - counted - batches - exchange.new - exchange.old) if "finished" in run else ():
            path = folder / table / name
            remedy = REPAIR if is_ours(path) else "move it elsewhere"
            yield path, f"has no file of this name in {folder / 'recordings'}: {remedy}"


def _run_id(folder: Path) -> str:
    return str((read_run(folder) or {}).get("id"))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.parquet")}
