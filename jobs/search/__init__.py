"""`satpipe search`: the stretches of an output folder that sound most like an example."""

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from satpipe.jobs.options.results import SearchOptions
from satpipe.jobs.search.examples import read_examples
from satpipe.jobs.search.nearest import Hits, nearest
from satpipe.pipeline.option import takes
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.chunk_embeddings import size_of_embeddings
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.schemas import HITS
from satpipe.pipeline.tables.selection import Selection
from satpipe.pipeline.tables.table_files import table_format, table_writer
from satpipe.sat.printable import counted


def find(out: str | Path | None, options: SearchOptions) -> Hits:
    """Find the chunks of a folder that are nearest to examples.

    The similarity of a chunk to an example is the cosine of the angle between their embeddings. The embedding of an
    example is the mean of those of its chunks, each scaled to length 1 and weighted by its duration. Of several
    examples, the most similar one counts. All chunks that are selected are compared. If the example is a recording of
    the folder, its own chunks are not found.

    Args:
        out: Output folder of `satpipe tag`, path or URL; by default SATPIPE_OUT, or `out` in the current folder.
        options: The examples, and what is searched.

    Raises:
        OutputError: `out` is not an output folder, has no embeddings, is damaged (the message names the file) or has no
            such recording.
        AudioError: An example cannot be read, is silent, or is shorter than a chunk.
        ConfigError: An option cannot work, or `model` is not the model of the folder.
        CheckpointError: The model is not where it was.
    """
    tables = Tables(out, scores=False)
    size_of_embeddings(tables)
    selection = Selection(options.recordings, since=options.since, until=options.until)
    part = selection.part(tables)
    notes = (*tables.notes, *selection.notes(tables))
    return nearest(tables, part, read_examples(tables, options), options.number, notes)


@takes(SearchOptions)
def search(out: str | Path, options: SearchOptions) -> pd.DataFrame:
    """Find the stretches of an output folder that sound most like an example.

    >>> hits = satpipe.search("out", like="recordings/birds.wav", number=3)
    >>> list(hits.columns)
    ['recording', 'start_s', 'end_s', 'label', 'score', 'time']

    Args:
        out: Output folder of `satpipe tag --embeddings`, path or URL; by default SATPIPE_OUT, or `out` in the current
            folder.
        options: Given as keyword arguments.

    Returns:
        A row for each run of adjacent chunks among the nearest, the most similar first; the score is the cosine of the
        angle between the embeddings of the nearest chunk and of the example.

    Raises:
        OutputError: `out` is not an output folder, has no embeddings, is damaged (the message names the file) or has no
            such recording.
        AudioError: An example cannot be read, is silent, or is shorter than a chunk.
        ConfigError: An option cannot work, or `model` is not the model of the folder.
        CheckpointError: The model is not where it was.
    """
    hits = find(out, options)
    for note in hits.notes:
        warnings.warn(note, stacklevel=4)
    frame: pd.DataFrame = hits.table.to_pandas()
    return frame


def write(hits: pa.Table, to: str | Path) -> None:
    """Write hits to a table whose name ends in .csv, .tsv or .parquet.

    Raises:
        ConfigError: The name has another ending.
        OutputError: The file cannot be written.
    """
    with table_writer(locate(to), table_format(to), HITS) as add:
        add(hits)


def text(hits: Hits) -> list[str]:
    """Return the lines that the command prints."""
    rows: list[dict[str, Any]] = hits.table.to_pylist()
    lines = [f"note: {note}" for note in hits.notes]
    several = len({row["label"] for row in rows}) > 1
    for row in rows:
        place = f"{row['score']:.3f}  {row['start_s']:10.2f} s to {row['end_s']:10.2f} s"
        when = f"  {row['time']:%Y-%m-%d %H:%M:%S}" if row["time"] is not None else ""
        label = f"  {row['label']}" if several else ""
        lines.append(f"{place}{when}  {row['recording']}{label}")
    return [*lines, f"{counted(len(rows), 'hit')} with {hits.found:,} of {counted(hits.searched, 'chunk')}"]
