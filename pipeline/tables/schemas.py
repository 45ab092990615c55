"""The schemas of all tables that satpipe writes, and the functions that fill them.

tags         one row per label of a chunk
scores       one row per chunk: all 527 scores in half precision, in the order of the model's outputs
embeddings   one row per chunk: the vector from which the model computes its scores
recordings   one row per recording, tagged or not
staged       float32 outputs for spans, written by workers before they are published into the tables above
clips        training sets: one row per clip, with its compressed audio
segments     scores by a teacher: one row per segment of a clip
events       one row per sound event
activity     one row per hour, day, recording or folder, and class or group
hits         of a search: one row per stretch of audio that is like an example
curves       of an evaluation: one row per point of a curve
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ

VERSION = 2
"""Version of these schemas, in the metadata of each file; files of version 1, which satpipe 0.1.0 wrote, state none."""
_NAME = pa.dictionary(pa.int32(), pa.string())
_SHA256_DIGITS = 12  # in the name of a model
_HALF_MAX = float(np.finfo(np.float16).max)

FILE = pa.struct(
    [
        pa.field("file", pa.string(), nullable=False),  # path relative to the input folder
        pa.field("start_s", pa.float64(), nullable=False),  # from the recording's start
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("header", pa.string()),
        pa.field("header_time", pa.string()),
    ]
)
_MADE = [
    pa.field("run_id", _NAME, nullable=False),  # the run that wrote the row, described in `runs`
    pa.field("model", _NAME, nullable=False),  # its configuration and the first 12 digits of its sha256
]
MADE = [field.name for field in _MADE]
"""Columns that tell what made a row."""
RECORDINGS = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),  # path relative to the input folder, posix style
        pa.field("duration_s", pa.float64()),  # of what could be decoded; null when nothing could
        pa.field("rate_hz", pa.int32()),
        pa.field("channels", pa.int32()),
        pa.field("chunks", pa.int32(), nullable=False),
        pa.field("tags", pa.int64()),  # its rows in the table of tags; null in tables of earlier versions
        pa.field("status", pa.string(), nullable=False),  # one of STATUSES
        pa.field("reason", pa.string(), nullable=False),  # "" when status is ok
        pa.field("size_bytes", pa.int64(), nullable=False),  # with `modified`, shows whether the file has changed since
        pa.field("modified", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC")),  # of its start; null if it is not known
        pa.field("clock_rate", pa.float64()),  # true seconds per second of the recording; null: 1
        pa.field("time_source", pa.string()),  # csv, pattern, guano, comment, name, bext or ixml
        pa.field("header", pa.string()),  # the part of the file's header that has a time
        pa.field("header_time", pa.string()),  # that time as in the header, ISO 8601
        pa.field("files", pa.list_(FILE)),  # of a deployment, in the order of time; null: one file of that name
        pa.field("warnings", pa.list_(pa.string()), nullable=False),  # what is odd but did not stop it, see below
        *(field.with_nullable(True) for field in _MADE),  # null in tables of version 1
    ]
)
_CHUNK = [
    pa.field("recording", _NAME, nullable=False),
    pa.field("chunk", pa.int32(), nullable=False),  # counted from 0
    pa.field("start_s", pa.float64(), nullable=False),  # from the recording's start
    pa.field("end_s", pa.float64(), nullable=False),  # of the last chunk: the recording's end
]
CHUNK = [field.name for field in _CHUNK]
"""Columns that identify a chunk."""
TAGS = pa.schema(
    [
        *_CHUNK,
        pa.field("mid", _NAME, nullable=False),  # AudioSet's id of the class
        pa.field("label", _NAME, nullable=False),  # its display name
        pa.field("score", pa.float32(), nullable=False),  # 0 to 1
        *_MADE,
    ]
)
SCORES = pa.schema([*_CHUNK, pa.field("scores", pa.list_(pa.float16(), CLASSES), nullable=False), *_MADE])
_BUNDLED_SIZE = 192  # of the embeddings of the bundled model


def embeddings_schema(size: int) -> pa.Schema:
    """Return the schema of the embeddings table of a model whose embeddings have `size` values."""
    value = pa.field("element", pa.float32(), nullable=False)  # nulls would double the time that reading takes
    return pa.schema([*_CHUNK, pa.field("embedding", pa.list_(value, size), nullable=False), *_MADE])


EMBEDDINGS = embeddings_schema(_BUNDLED_SIZE)  # values rounded to half precision, see satpipe.sat.model.outputs
STAGED = pa.schema(
    [
        pa.field("span", pa.int32(), nullable=False),  # position in the task's list of spans
        pa.field("chunk", pa.int32(), nullable=False),
        pa.field("scores", pa.list_(pa.float32(), CLASSES), nullable=False),
    ]
)


def staged_schema(embedding_size: int) -> pa.Schema:
    """Return the schema of staged files: `STAGED`, with a column `embedding` unless its size is 0."""
    return STAGED.append(embeddings_schema(embedding_size).field("embedding")) if embedding_size else STAGED


CLIPS = pa.schema(
    [
        pa.field("clip", pa.string(), nullable=False),  # its name: path in the folder, or AudioSet's id
        pa.field("audio", pa.large_binary(), nullable=False),  # a whole file that libsndfile reads
        pa.field("rate_hz", pa.int32(), nullable=False),
        pa.field("duration_s", pa.float32(), nullable=False),
        pa.field("labels", pa.list_(pa.int16())),  # positions in the model's outputs; null if it is not labelled
    ]
)
SEGMENTS = pa.schema(
    [
        pa.field("clip", pa.string(), nullable=False),
        pa.field("start_s", pa.float32(), nullable=False),  # from the clip's start
        pa.field("end_s", pa.float32(), nullable=False),  # past the clip's end where that was padded with silence
        pa.field(
            "index", pa.list_(pa.int16()), nullable=False
        ),  # positions in the model's outputs, highest score first
        pa.field("score", pa.list_(pa.float32()), nullable=False),  # 0 to 1; what is not listed is 0
    ]
)

EVENTS = pa.schema(
    [
        pa.field("recording", _NAME, nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),  # from the recording's start
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("mid", _NAME, nullable=False),
        pa.field("label", _NAME, nullable=False),
        pa.field("peak_score", pa.float32(), nullable=False),  # the highest one
        pa.field("mean_score", pa.float32(), nullable=False),  # of the chunks that reach the lower threshold
        pa.field("time", pa.timestamp("us", tz="UTC")),  # of the start; null where the recording's is not known
        pa.field("time_local", pa.string()),  # the same in the run's time zone, ISO 8601 with the offset from UTC
        pa.field("end_time", pa.timestamp("us", tz="UTC")),
    ]
)
ACTIVITY = pa.schema(  # columns of places and times are there if rows tell them apart
    [
        pa.field("recording", _NAME, nullable=False),
        pa.field("folder", _NAME, nullable=False),  # of the recording, "" for the input folder itself
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),  # start of the hour or day
        pa.field("time_local", _NAME, nullable=False),  # the same in local time, ISO 8601 with the offset from UTC
        pa.field("date", pa.date32(), nullable=False),  # in local time
        pa.field("hour", pa.int8(), nullable=False),  # in local time, 0 to 23
        pa.field("mid", _NAME, nullable=False),
        pa.field("label", _NAME, nullable=False),
        pa.field("recorded_s", pa.float64(), nullable=False),  # length of the tagged audio, the effort; never 0
        pa.field("events", pa.int32(), nullable=False),  # that begin there
        pa.field("active_s", pa.float64(), nullable=False),  # length of events there, of those that begin before, too
        pa.field("share", pa.float64(), nullable=False),  # active_s / recorded_s
        pa.field("peak_score", pa.float32(), nullable=False),  # the highest one, also below the threshold
    ]
)
HITS = pa.schema(
    [
        pa.field("recording", _NAME, nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),  # from the recording's start
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("label", _NAME, nullable=False),  # of the example
        pa.field("score", pa.float32(), nullable=False),  # cosine of the angle to the example, of the nearest chunk
        pa.field("time", pa.timestamp("us", tz="UTC")),  # of the start; null where the recording's is not known
    ]
)
CURVES = pa.schema(
    [
        pa.field("curve", _NAME, nullable=False),  # precision_recall_clips, precision_recall_chunks, psds1, ...
        pa.field("mid", _NAME),  # null: all classes together
        pa.field("label", _NAME),
        pa.field("x", pa.float64(), nullable=False),  # recall; or effective false positives per hour
        pa.field("y", pa.float64(), nullable=False),  # precision; or effective true positive ratio
    ]
)

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
    name: str, size_bytes: int, modified_ns: int, status: str, reason: str, **known: Any
) -> dict[str, Any]:
    """Return a row of the recordings table; what is not known stays null."""
    row = {"duration_s": None, "rate_hz": None, "channels": None, "chunks": 0, "warnings": [], **known}
    return {
        "recording": name, "size_bytes": size_bytes, "modified": modified_ns, "status": status, "reason": reason, **row
    }  # fmt: skip


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


def is_of(table: str, schema: pa.Schema, version: int = VERSION) -> bool:
    """Return True if a schema is that of one of `CHUNK_TABLES` in a version; embeddings may have any size."""
    wanted = present(table, schema)
    return bool(schema.equals(wanted if version == VERSION else _first_version(wanted)))


def present(table: str, schema: pa.Schema) -> pa.Schema:
    """Return the present schema of one of `CHUNK_TABLES`, with embeddings of the size that they have in `schema`."""
    size = embedding_size(schema) if table == "embeddings" else 0
    return embeddings_schema(size) if size else SCHEMAS[table]


def _first_version(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in MADE])


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
    columns = [pa.array(spans, pa.int32()), pa.array(chunks, pa.int32()), _lists(outputs[:, :CLASSES])]
    return pa.table([*columns, *([_lists(outputs[:, CLASSES:])] if size else [])], schema=staged_schema(size))


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
    values = _lists(scores.astype(np.float16))
    return pa.table([*_chunk_columns(recordings, chunks, times), values, *made.columns(len(chunks))], schema=SCORES)


def embedding_rows(
    recordings: pa.DictionaryArray,
    chunks: npt.NDArray[np.int32],
    embeddings: npt.NDArray[np.float32],
    times: tuple[Any, Any],
    made: Made,
) -> pa.Table:
    """Return rows of the embeddings table from embeddings [n, D]; `recordings` is from `name_of_each`."""
    rounded = np.clip(embeddings, -_HALF_MAX, _HALF_MAX).astype(np.float16).astype(np.float32)
    columns = [*_chunk_columns(recordings, chunks, times), _lists(rounded), *made.columns(len(chunks))]
    return pa.table(columns, schema=embeddings_schema(embeddings.shape[1]))


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
    columns = _chunk_columns(recordings.take(pa.array(row)), chunks[row], (times[0][row], times[1][row]))
    mid = pa.DictionaryArray.from_arrays(classes, [label.mid for label in labels])
    name = pa.DictionaryArray.from_arrays(classes, [label.name for label in labels])
    return pa.table([*columns, mid, name, values, *made.columns(len(row))], schema=TAGS)


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
