"""The schemas of all tables that satpipe writes, and the functions that fill them.

tags         one row per label of a chunk
scores       one row per chunk: all 527 scores, in the order of the model's outputs
embeddings   one row per chunk: the vector from which the model computes its scores
recordings   one row per recording, tagged or not
staged       float32 outputs for spans, written by workers before they are published into the tables above
clips        training sets: one row per clip, with its compressed audio
segments     scores by a teacher: one row per segment of a clip
events       one row per sound event
activity     one row per hour, day, recording or folder, and class or group
hits         of a search: one row per stretch of audio that is like an example
changes      of a comparison of two output folders: one row per class or group
curves       of an evaluation: one row per point of a curve
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.pipeline.tables import columns
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ

VERSION = 2
"""Version of these schemas, in the metadata of each file; files of version 1, which satpipe 0.1.0 wrote, state none."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHA256_DIGITS = 12  # in the name of a model
_HALF_MAX = float(np.finfo(np.float16).max)

FILE, RECORDINGS, TAGS, SCORES, STAGED, CLIPS, SEGMENTS, EVENTS, ACTIVITY, HITS, CHANGES, CURVES = (
    pa.schema(columns.fields(each))
    for each in (
        columns.FILE,
        columns.RECORDINGS,
        columns.TAGS,
        columns.SCORES,
        columns.STAGED,
        columns.CLIPS,
        columns.SEGMENTS,
        columns.EVENTS,
        columns.ACTIVITY,
        columns.HITS,
        columns.CHANGES,
        columns.CURVES,
    )
)
CHUNK = [column.name for column in columns.CHUNK]
"""Columns that identify a chunk."""
MADE = [column.name for column in columns.MADE]
"""Columns that tell what made a row."""


def embeddings_schema(size: int) -> pa.Schema:
    """Return the schema of the embeddings table of a model whose embeddings have `size` values."""
    return pa.schema(columns.fields(columns.embeddings(size)))


def staged_schema(embedding_size: int) -> pa.Schema:
    """Return the schema of staged files: `STAGED`, with a column `embedding` unless its size is 0."""
    return STAGED.append(embeddings_schema(embedding_size).field("embedding")) if embedding_size else STAGED


EMBEDDINGS = embeddings_schema(columns.BUNDLED_SIZE)
SCHEMAS = {"tags": TAGS, "scores": SCORES, "embeddings": EMBEDDINGS, "recordings": RECORDINGS}
CHUNK_TABLES = ("tags", "scores", "embeddings")
"""The tables of which a batch has a file beside that of `recordings`, if they are wanted."""

STATUSES = {
    "ok": "tagged from start to end",
    "truncated": "cut off or broken: tagged up to the break",
    "invalid samples": "tagged, with NaN, infinite or absurdly large samples replaced by silence",
    "short": "shorter than one patch (0.16 s): tagged, padded with silence",
    "empty": "a header without samples",
    "unreadable": "not opened, or not audio",
    "worker died": "crashed its worker, or made it hang, at every try",
}


def recording_row(
    name: str, size_bytes: int, modified_us: int, status: str, reason: str, **known: Any
) -> dict[str, Any]:
    """Return a row of the recordings table; what is not known stays null."""
    row = {"duration_s": None, "rate_hz": None, "channels": None, "chunks": 0, "warnings": [], **known}
    return {
        "recording": name, "size_bytes": size_bytes, "modified": modified_us, "status": status, "reason": reason, **row
    }  # fmt: skip


def since_1970_us(time: datetime) -> int:
    """Return a time read from a table in microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def complete(recordings: pa.Table) -> pa.Table:
    """Add columns that earlier versions of the recordings table did not have; they are null, or empty lists."""
    for field in RECORDINGS:
        if field.name in recordings.column_names:
            continue
        if field.nullable:
            recordings = recordings.append_column(field, pa.nulls(len(recordings), field.type))
        elif field.name == "warnings":
            recordings = recordings.append_column(field, pa.array([[]] * len(recordings), field.type))
    return recordings


def is_of(table: str, schema: pa.Schema) -> bool:
    """Return True if a schema is that of one of `CHUNK_TABLES`, in any version; embeddings may have any size."""
    wanted = present(table, schema)
    return bool(schema.equals(wanted) or schema.equals(_first_version(wanted)))


def present(table: str, schema: pa.Schema) -> pa.Schema:
    """Return the present schema of one of `CHUNK_TABLES`, with embeddings of the size that they have in `schema`."""
    size = embedding_size(schema) if table == "embeddings" else 0
    return embeddings_schema(size) if size else SCHEMAS[table]


def _first_version(schema: pa.Schema) -> pa.Schema:
    halves = pa.field("scores", pa.list_(pa.float16(), CLASSES), nullable=False)
    return pa.schema([halves if field.name == "scores" else field for field in schema if field.name not in MADE])


@dataclass(frozen=True)
class Made:
    """What made rows: values of the columns `MADE`.

    Attributes:
        run_id: Identifies the run.
        model: From `model_name`.
    """

    run_id: str
    model: str

    def columns(self, count: int) -> list[pa.DictionaryArray]:
        """Return the columns of so many rows."""
        return [pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [each]) for each in (self.run_id, self.model)]


def model_name(identity: Mapping[str, Any]) -> str:
    """Return the name of a model in tables, given the `identity` in `run.json`, such as `SAT_T_2s@57db588cd292`."""
    return f"{identity.get('arch', '')}@{identity.get('model_sha256', '')[:_SHA256_DIGITS]}"


def embedding_size(schema: pa.Schema) -> int:
    """Return the number of values of the embeddings in a table with this schema; 0 if it has none."""
    kind = schema.field("embedding").type if "embedding" in schema.names else None
    return kind.list_size if isinstance(kind, pa.FixedSizeListType) else 0


def staged_table(spans: list[int], chunks: list[int], outputs: npt.NDArray[np.float32]) -> pa.Table:
    """Return the rows of outputs [n, 527 + D], schema `staged_schema(D)`."""
    size = outputs.shape[1] - CLASSES
    scores = [pa.array(spans, pa.int32()), pa.array(chunks, pa.int32()), _lists(outputs[:, :CLASSES])]
    return pa.table([*scores, *([_lists(outputs[:, CLASSES:])] if size else [])], schema=staged_schema(size))


def chunk_times(chunks: npt.NDArray[np.int32], chunk_samples: int, duration_s: Any) -> tuple[Any, Any]:
    """Return start and end of chunks in seconds: integer samples divided once; the last end is the recording's end.

    The duration is that of the recording, or of the recording of each chunk [n].
    """
    index = chunks.astype(np.int64)
    start_s = index * chunk_samples / SAMPLE_RATE_HZ
    end_s = np.minimum((index + 1) * chunk_samples / SAMPLE_RATE_HZ, duration_s)
    return start_s, end_s


def name_of_each(names: list[str], place: npt.NDArray[np.int32]) -> pa.DictionaryArray:
    """Return the recording of each chunk [n], given names of recordings and the place of each chunk's among them."""
    return pa.DictionaryArray.from_arrays(place, names)


def score_rows(
    recordings: pa.DictionaryArray,
    chunks: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float32],
    times: tuple[Any, Any],
    made: Made,
) -> pa.Table:
    """Return rows of the scores table from scores [n, 527]; `recordings` is from `name_of_each`."""
    about = _chunk_columns(recordings, chunks, times)
    return pa.table([*about, _lists(rounded(scores)), *made.columns(len(chunks))], schema=SCORES)


def embedding_rows(
    recordings: pa.DictionaryArray,
    chunks: npt.NDArray[np.int32],
    embeddings: npt.NDArray[np.float32],
    times: tuple[Any, Any],
    made: Made,
) -> pa.Table:
    """Return rows of the embeddings table from embeddings [n, D]; `recordings` is from `name_of_each`."""
    about, schema = _chunk_columns(recordings, chunks, times), embeddings_schema(embeddings.shape[1])
    return pa.table([*about, _lists(rounded(embeddings)), *made.columns(len(chunks))], schema=schema)


def rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return values rounded to half precision."""
    return np.clip(values, -_HALF_MAX, _HALF_MAX).astype(np.float16).astype(np.float32)


def tag_rows(
    recordings: pa.DictionaryArray,
    chunks: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float32],
    times: tuple[Any, Any],
    made: Made,
    *,
    threshold: float,
    top_k: int,
) -> pa.Table:
    """Return rows of the tags table: of each chunk the `top_k` best labels that reach `threshold`, best first.

    `recordings` is from `name_of_each`.
    """
    row, classes, values = best_labels(scores, threshold, top_k)
    labels = weak_labels()
    about = _chunk_columns(recordings.take(pa.array(row)), chunks[row], (times[0][row], times[1][row]))
    mid = pa.DictionaryArray.from_arrays(classes, [label.mid for label in labels])
    name = pa.DictionaryArray.from_arrays(classes, [label.name for label in labels])
    return pa.table([*about, mid, name, values, *made.columns(len(row))], schema=TAGS)


def best_labels(
    scores: npt.NDArray[np.float32], threshold: float, top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the `top_k` best labels of each row of scores [n, 527] that reach `threshold`: row, class, score."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, : min(top_k, CLASSES)]
    values = np.take_along_axis(scores, best, axis=1)
    row, rank = np.nonzero(values >= np.float32(threshold))
    return row, best[row, rank].astype(np.int32), values[row, rank]


def _chunk_columns(recordings: pa.DictionaryArray, chunks: npt.NDArray[np.int32], times: tuple[Any, Any]) -> list[Any]:
    return [recordings, pa.array(chunks, pa.int32()), pa.array(times[0]), pa.array(times[1])]


def _lists(values: npt.NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
