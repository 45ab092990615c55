"""Find damaged tables.

A batch is damaged if one of its files is truncated, missing, at the place of another one, or a copy. All this is seen
from the names and footers of files, which is fast. With the contents, every row is read: page checksums find bits that
have changed, and each recording must have all its rows, once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.tables.batches import read_recordings
from satpipe.pipeline.tables.files import (
    DELETE,
    REPAIR,
    open_table,
    promise,
    reading,
    tables_of,
    version_of,
)
from satpipe.pipeline.tables.open_folder import all_numbers, codes, side_by_side
from satpipe.pipeline.tables.schemas import RECORDINGS, SCHEMAS, VERSION
from satpipe.pipeline.tables.swap import counted_files, unaccounted
from satpipe.sat.errors import DamageError
from satpipe.sat.labels import weak_labels

_VALUES = {"tags": "score", "scores": "scores", "embeddings": "embedding"}
_LABELS = {label.mid: place for place, label in enumerate(weak_labels())}


@dataclass(frozen=True)
class Damage:
    """What is wrong with the tables of an output folder.

    Attributes:
        problems: A line for each, which names the file.
        batches: Names of the damaged batches, each with the recordings that it is known to contain.
        recordings: The recordings table of the other batches.
        old: Number of the other batches that an earlier version of satpipe wrote.
    """

    problems: tuple[str, ...]
    batches: Mapping[str, frozenset[str]]
    recordings: pa.Table
    old: int = 0

    @property
    def affected(self) -> frozenset[str]:
        """The recordings that only damaged batches contain."""
        return frozenset().union(*self.batches.values()) - set(self.recordings["recording"].to_pylist())


NO_DAMAGE = Damage((), {}, pa.Table.from_batches([], RECORDINGS))


def find_damage(folder: Path, run: Mapping[str, Any], *, contents: bool = False) -> Damage:
    """Find the damaged batches of an output folder.

    Args:
        folder: The folder.
        run: Content of its `run.json`.
        contents: Also read all rows, and name files that do not belong there.

    Raises:
        OutputError: A file cannot be read for another reason than damage.
    """
    search = _Search(folder, run)
    search.read_recordings()
    search.compare_names()
    search.read(_footer_problem)
    if contents:
        search.read(_content_problem)
        search.problems += _strays(folder)
    parts = [NO_DAMAGE.recordings, *search.whole.values()]
    batches = {name: frozenset(held) for name, held in search.damaged.items()}
    old = sum(version_of(folder, each.schema.metadata) < VERSION for each in search.whole.values())
    return Damage(tuple(search.problems), batches, pa.concat_tables(parts), old)


class _Search:
    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder, self.run = folder, run
        self.problems: list[str] = []
        self.damaged: dict[str, set[str]] = {}
        self.whole: dict[str, pa.Table] = {}  # recordings tables of batches without a problem so far

    def read_recordings(self) -> None:
        """Read the recordings table."""
        paths = counted_files(self.folder)
        seen: set[str] = set()
        for path, found in zip(paths, side_by_side(_tried(read_recordings), paths), strict=True):
            if isinstance(found, DamageError):
                self._note(path.name, str(found))
                continue
            self.whole[path.name] = found
            names = found["recording"].to_pylist()
            if len(set(names) - seen) < len(names):
                self._note(path.name, f"{path} has recordings that are in the tables twice: {REPAIR}")
            else:
                seen.update(names)

    def compare_names(self) -> None:
        """Compare the names of files of the tables with each other, and with those noted when the run finished."""
        unread = set(self.damaged)
        for path, problem in unaccounted(self.folder, self.run, self.whole.keys() | unread):
            if path.name not in unread:
                self._note(path.name, f"{path} {problem}")

    def read(self, problem: Callable[[tuple[Path, pa.Table]], str]) -> None:
        """Examine the files of batches that have no problem so far."""
        tables, batches = tables_of(self.run), dict(self.whole)
        files = [(self.folder / table / name, part) for name, part in batches.items() for table in tables]
        for (path, _), found in zip(files, side_by_side(problem, files), strict=True):
            if found:
                self._note(path.name, found)

    def _note(self, batch: str, problem: str) -> None:
        self.problems.append(problem)
        if batch not in self.damaged:
            rows = self.whole.pop(batch, None)
            held = set(rows["recording"].to_pylist()) if rows else set()
            self.damaged[batch] = held.union(*(_held(self.folder / table / batch) for table in SCHEMAS))


def _tried(read: Callable[[Path], pa.Table]) -> Callable[[Path], "pa.Table | DamageError"]:
    def attempt(path: Path) -> "pa.Table | DamageError":
        try:
            return read(path)
        except DamageError as error:
            return error

    return attempt


def _held(path: Path) -> set[str]:
    """Return the recordings of which a file has rows, as far as it can be read."""
    try:
        with reading(path), path.open("rb") as opened:
            column = pq.read_table(opened, columns=["recording"])["recording"]
            return set(pc.unique(column.cast(pa.string())).to_pylist())
    except (DamageError, KeyError):
        return set()


def _footer_problem(file: tuple[Path, pa.Table]) -> str:
    path, recordings = file
    try:
        with open_table(path, promise(recordings)):
            return ""
    except DamageError as error:
        return str(error)


def _content_problem(file: tuple[Path, pa.Table]) -> str:
    path, recordings = file
    place = {name: row for row, name in enumerate(recordings["recording"].to_pylist())}
    keys = [np.empty(0, np.int64)]
    try:
        with open_table(path, promise(recordings)) as table:
            for group in range(table.num_row_groups):
                rows = table.read_row_group(group)
                recording, scores = codes(rows["recording"], place), rows.column(_VALUES[path.parent.name])
                if (recording < 0).any():
                    return f"{path} has rows of recordings of another batch: {DELETE}"
                values = (scores if path.parent.name == "tags" else pc.list_flatten(scores)).to_numpy()
                if not all_numbers(values):
                    what = "embeddings" if path.parent.name == "embeddings" else "scores"
                    return f"{path} has {what} that are not numbers: {DELETE}"
                label = codes(rows["mid"], _LABELS) if "mid" in rows.column_names else np.zeros(1, np.int32)
                if (label < 0).any():
                    return f"{path} has rows of unknown classes: {DELETE}"
                keys.append((recording.astype(np.int64) << 42) | (rows["chunk"].to_numpy() * 2**10) | label)
    except DamageError as error:
        return f"{str(error).removesuffix(f': {REPAIR}')}: {DELETE}"
    problem = _incomplete(np.concatenate(keys), recordings, path.parent.name)
    return f"{path} {problem}: {DELETE}" if problem else ""


def _incomplete(keys: npt.NDArray[np.int64], recordings: pa.Table, table: str) -> str:
    """Return what is wrong with the rows of a file, given recording, chunk and class of each in one number."""
    if len(np.unique(keys)) < len(keys):
        return "has rows twice"
    counted = np.bincount(keys >> 42, minlength=len(recordings))
    wanted = recordings["tags" if table == "tags" else "chunks"].to_numpy()
    wrong = np.flatnonzero(~np.isnan(wanted.astype(np.float64)) & (counted != wanted))
    if len(wrong):
        name = recordings["recording"][int(wrong[0])].as_py()
        return f"has {counted[wrong[0]]:,} rows of {name} instead of {int(wanted[wrong[0]]):,}"
    return ""


def _strays(folder: Path) -> Iterator[str]:
    """Yield what is in the folders of the tables but not a file of a table."""
    for table in SCHEMAS:
        for path in sorted((folder / table).glob("*"), key=lambda path: path.name):
            if not path.name.startswith(".") and (path.suffix != ".parquet" or not path.is_file()):
                yield f"{path} is not a file of satpipe: move it elsewhere"
