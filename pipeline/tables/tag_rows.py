"""Read rows of the tags table."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from satpipe.pipeline.tables.files import open_table
from satpipe.pipeline.tables.open_folder import Part, Tables
from satpipe.pipeline.tables.schemas import MADE, TAGS
from satpipe.sat.labels import weak_labels

_COLUMNS = [name for name in TAGS.names if name not in MADE]


def read_tag_rows(
    tables: Tables, part: Part, name: str, columns: Iterable[int] | None = None, min_score: float = 0.0
) -> pa.Table:
    """Return rows of a file of tags without `MADE`, among them all of the chunks of a part of its recordings.

    Args:
        tables: The folder.
        part: Recordings of the file, and their chunks.
        name: Of the file.
        columns: Classes, positions in the model's outputs; None: all.
        min_score: Minimum score.

    Raises:
        OutputError: The file cannot be read or is damaged; the message names it.
    """
    wanted = pc.field("recording").isin([tables.recordings[row] for row in part.recordings])
    wanted &= (pc.field("score") >= min_score) & (pc.field("chunk") >= int(part.begin.min()))
    wanted &= pc.field("chunk") < int(part.end.max())
    if columns is not None:
        wanted &= pc.field("mid").isin([weak_labels()[column].mid for column in columns])
    path = tables.folder / "tags" / name
    with open_table(path, tables.promised[name]), path.open("rb") as opened:
        return pq.read_table(opened, columns=_COLUMNS, filters=wanted, page_checksum_verification=True)
