"""Bring tables of earlier versions to the schemas of this one, so that any engine reads a folder as one table.

Version 1 is that of satpipe 0.1.0. Its rows get the `run_id` of the run that `run.json` describes: what earlier runs
wrote into the same folder was made with the same model and options.
"""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from satpipe.pipeline.tables.batches import Batches, read_recordings
from satpipe.pipeline.tables.files import (
    DELETE,
    OWN,
    REPAIR,
    keep_run,
    metadata,
    row_groups,
    schema_of,
    table_writer,
    version_of,
)
from satpipe.pipeline.tables.open_folder import side_by_side
from satpipe.pipeline.tables.schemas import MADE, VERSION, Made, model_name, present
from satpipe.pipeline.tables.swap import kinds
from satpipe.sat.errors import DamageError


def upgrade(folder: Path, run: Mapping[str, Any], damaged: Collection[str] = ()) -> None:
    """Write the files of earlier versions again, each whole or not at all.

    The file of recordings is the last one of a batch: until then, the next call begins with this batch again.

    Args:
        folder: The output folder.
        run: Content of `run.json` before the present run.
        damaged: Batches to leave as they are.

    Raises:
        DamageError: A file cannot be read; the message names it.
        OutputError: A newer satpipe wrote a file, or the folder cannot be written.
    """
    batches = Batches(folder)
    old = [name for name in batches.names if name not in damaged and is_old(folder / "recordings" / name)]
    if old:
        known = {"id": "unknown", "identity": {}, **run}
        keep_run(folder, known)
        made = Made(known["id"], model_name(known["identity"]))
        for _ in side_by_side(partial(_upgrade, batches, folder, made), old):
            pass


def is_old(path: Path) -> bool:
    """Return True if an earlier version wrote a file."""
    return version_of(path, metadata(path)) < VERSION


def _upgrade(batches: Batches, folder: Path, made: Made, name: str) -> None:
    try:
        for table in kinds(folder):
            if table != "recordings" and (folder / table / name).exists() and is_old(folder / table / name):
                _rewrite(folder, table, name, made)
        path = folder / "recordings" / name
        recordings = read_recordings(path)
        for column, values in zip(MADE, made.columns(len(recordings)), strict=True):
            if recordings[column].null_count:
                place = recordings.column_names.index(column)
                recordings = recordings.set_column(place, recordings.field(place), values)
        batches.commit(name, recordings)
    except DamageError as error:
        raise DamageError(f"{str(error).removesuffix(f': {REPAIR}')}: {DELETE}") from error


def _rewrite(folder: Path, table: str, name: str, made: Made) -> None:
    path = folder / table / name
    schema = present("tags" if table.startswith(OWN) else table, schema_of(path))
    stated = {key: value for key, value in metadata(path).items() if key.startswith(b"satpipe.")}
    with table_writer(folder, table, name, schema, stated) as writer:
        for rows in row_groups(path):
            new = dict(zip(MADE, made.columns(len(rows)), strict=True))
            columns = [
                rows[field.name].cast(field.type) if field.name in rows.column_names else new[field.name]
                for field in schema
            ]
            writer.add(pa.table(columns, schema=schema))
