"""`satpipe classify`: score tagged recordings for own classes, from their embeddings."""

from pathlib import Path

from satpipe.jobs.this_run import this_run
from satpipe.pipeline.tables.chunk_embeddings import size_of_embeddings
from satpipe.pipeline.tables.files import OWN
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.own_tables import check_model, put
from satpipe.pipeline.tables.upgrade import upgrade
from satpipe.sat.own_classes import read_own_classes, table_name
from satpipe.sat.printable import counted


def classify(out: str | Path, path: str | Path) -> str:
    """Write the table of own classes of an output folder; a table of that name is replaced.

    Args:
        out: Output folder with embeddings, path or URL.
        path: File of the classes.

    Returns:
        A line about the result.

    Raises:
        OutputError: `out` has no embeddings, or they cannot be read; or another run is writing to it.
        CheckpointError: The file is not valid.
        ConfigError: The classes were learned with another model, or the name of the file cannot be that of a table.
    """
    classes, name = read_own_classes(path), table_name(path)
    with Output(out).locked():
        tables = Tables(out, scores=False)
        check_model(classes, path, tables)
        size_of_embeddings(tables)
        upgrade(tables.folder, tables.run)
        table = put(tables.folder, Path(path))
        scored = table.update(tables, this_run() | {"own_classes": {"name": name, "sha256": classes.sha256}})
    number = counted(len(classes.labels), "class", "classes")
    kept = f", {sum(tables.chunks) - scored:,} had been scored before" if scored < sum(tables.chunks) else ""
    return f"{tables.folder / OWN / name}: {counted(scored, 'chunk')} scored for {number}{kept}"
