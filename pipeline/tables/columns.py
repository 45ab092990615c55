"""The columns of all tables: name, type, meaning, unit and an example, each stated once.

`satpipe.pipeline.tables.schemas` makes schemas of them, and the documentation its tables.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa
from satpipe.sat.model.config import CLASSES

_NAME = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("us", tz="UTC")  # Spark does not read nanoseconds
_TEXT, _FLOAT, _SCORE, _SECONDS = pa.string(), pa.float64(), pa.float32(), pa.float64()

BUNDLED_SIZE = 192
"""Number of values of the embeddings of the bundled model."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: Type of its values.
        about: What a value means.
        example: A value.
        unit: Of the values; "" for none.
        null: True if a value may be missing.
    """

    name: str
    kind: pa.DataType
    about: str
    example: str
    unit: str = ""
    null: bool = False


def fields(columns: Iterable[Column]) -> list[pa.Field]:
    """Return columns as the fields of a schema."""
    return [pa.field(column.name, column.kind, nullable=column.null) for column in columns]


def vectors(size: int) -> pa.DataType:
    """Return the type of vectors whose values are rounded to half precision."""
    return pa.list_(pa.field("element", pa.float32(), nullable=False), size)  # nulls would double the time of reading


def embeddings(size: int) -> tuple[Column, ...]:
    """Return the columns of the embeddings table of a model whose embeddings have `size` values."""
    about = "the vector from which the model computes the scores, in half precision"
    return *CHUNK, Column("embedding", vectors(size), about, "[0.4951, -1.2520, ...]"), *MADE


_MID = Column("mid", _NAME, "AudioSet's id of the class", "/m/015p6")
_LABEL = Column("label", _NAME, "its display name", "Bird")
_RECORDING = Column("recording", _NAME, "path of the recording, see `recordings`", "night/2025-05-01.flac")
_START = Column("start_s", _SECONDS, "from the recording's start", "3.84", "s")
_START_TIME = Column(
    "time", _TIME, "of the start; null where the recording's is not known", "2025-05-01 20:30:03.84Z", "UTC", null=True
)
_END = Column("end_s", _SECONDS, "from the recording's start", "5.76", "s")
_LOCAL = "the same in the run's time zone, ISO 8601 with the offset from UTC"
_HEADER = Column("header", _TEXT, "the part of the file's header that has a time", "guano", null=True)
_HEADER_TIME = Column(
    "header_time", _TEXT, "that time as in the header, ISO 8601", "2025-05-01T22:30:00+02:00", null=True
)
_SIZE = Column(
    "size_bytes", pa.int64(), "with `modified`, shows whether the file has changed since", "115200044", "bytes"
)
_MODIFIED = Column("modified", _TIME, "last change of the file", "2025-05-02 07:12:09.123456Z", "UTC")

CHUNK = (
    _RECORDING,
    Column("chunk", pa.int32(), "counted from 0", "2"),
    _START,
    Column("end_s", _SECONDS, "of the last chunk: the recording's end", "5.76", "s"),
)
MADE = (
    Column("run_id", _NAME, "the run that wrote the row, described in `runs`", "20250502T060000Z-9f17849e"),
    Column("model", _NAME, "its configuration and the first 12 digits of its sha256", "SAT_T_2s@57db588cd292"),
)
FILE = (
    Column("file", _TEXT, "path relative to the input folder", "a/20250501_203000.wav"),
    Column("start_s", _SECONDS, "from the recording's start", "3600.0", "s"),
    Column("duration_s", _SECONDS, "its length", "3600.0", "s"),
    _SIZE,
    _MODIFIED,
    _HEADER,
    _HEADER_TIME,
)
RECORDINGS = (
    Column("recording", _TEXT, "path relative to the input folder, posix style", "night/2025-05-01.flac"),
    Column("duration_s", _SECONDS, "of what could be decoded; null when nothing could", "3600.0", "s", null=True),
    Column("rate_hz", pa.int32(), "sampling rate of the file", "48000", "Hz", null=True),
    Column("channels", pa.int32(), "in the file", "2", null=True),
    Column("chunks", pa.int32(), "that were tagged", "1875"),
    Column("tags", pa.int64(), "its rows in the table of tags; null in tables of earlier versions", "2210", null=True),
    Column("status", _TEXT, "one of those below", "ok"),
    Column("reason", _TEXT, 'why the status is not ok; "" if it is', "decoding breaks off at 12.000 s of 3600.000 s"),
    _SIZE,
    _MODIFIED,
    Column("time", _TIME, "of its start; null if it is not known", "2025-05-01 20:30:00Z", "UTC", null=True),
    Column("clock_rate", _FLOAT, "true seconds per second of the recording; null: 1", "1.000012", null=True),
    Column("time_source", _TEXT, "csv, pattern, guano, comment, name, bext or ixml", "name", null=True),
    _HEADER,
    _HEADER_TIME,
    Column(
        "files",
        pa.list_(pa.struct(fields(FILE))),
        "of a deployment, in the order of time; null: one file of that name",
        "[{file: a/20250501_203000.wav, ...}, ...]",
        null=True,
    ),
    Column(
        "warnings",
        pa.list_(_TEXT),
        "what is odd but did not stop it, see below",
        "[dead channel: channel 2 of 2 has no sound]",
    ),
    *(replace(column, about=f"{column.about}; null in tables of version 1", null=True) for column in MADE),
)
TAGS = (*CHUNK, _MID, _LABEL, Column("score", _SCORE, "0 to 1", "0.8213"), *MADE)
SCORES = (
    *CHUNK,
    Column("scores", vectors(CLASSES), "of all classes, 0 to 1, in half precision", "[0.00012, 0.0341, ...]"),
    *MADE,
)
EMBEDDINGS = embeddings(BUNDLED_SIZE)
STAGED = (
    Column("span", pa.int32(), "position in the task's list of spans", "0"),
    Column("chunk", pa.int32(), "counted from 0", "2"),
    Column("scores", pa.list_(pa.float32(), CLASSES), "of all classes, 0 to 1", "[0.00012, 0.0341, ...]"),
)
CLIPS = (
    Column("clip", _TEXT, "its name: path in the folder, or AudioSet's id", "Y-0DLPzsiXXE"),
    Column("audio", pa.large_binary(), "a whole file that libsndfile reads", "(FLAC)"),
    Column("rate_hz", pa.int32(), "sampling rate", "16000", "Hz"),
    Column("duration_s", pa.float32(), "its length", "10.0", "s"),
    Column(
        "labels",
        pa.list_(pa.int16()),
        "positions in the model's outputs; null if it is not labelled",
        "[111]",
        null=True,
    ),
)
SEGMENTS = (
    Column("clip", _TEXT, "its name", "Y-0DLPzsiXXE"),
    Column("start_s", pa.float32(), "from the clip's start", "1.92", "s"),
    Column("end_s", pa.float32(), "past the clip's end where that was padded with silence", "3.84", "s"),
    Column("index", pa.list_(pa.int16()), "positions in the model's outputs, highest score first", "[111, 72]"),
    Column("score", pa.list_(pa.float32()), "0 to 1; what is not listed is 0", "[0.91, 0.40]"),
)
EVENTS = (
    _RECORDING,
    _START,
    _END,
    _MID,
    _LABEL,
    Column("peak_score", _SCORE, "the highest one, 0 to 1", "0.9102"),
    Column("mean_score", _SCORE, "of the chunks that reach the lower threshold, 0 to 1", "0.7433"),
    _START_TIME,
    Column("time_local", _TEXT, _LOCAL, "2025-05-01T22:30:03.840+02:00", null=True),
    Column("end_time", _TIME, "of the end", "2025-05-01 20:30:05.76Z", "UTC", null=True),
)
ACTIVITY = (  # columns of places and times are there if rows tell them apart
    _RECORDING,
    Column("folder", _NAME, 'of the recording, "" for the input folder itself', "night"),
    Column("time", _TIME, "start of the hour or day", "2025-05-01 20:00:00Z", "UTC"),
    Column("time_local", _NAME, _LOCAL, "2025-05-01T22:00:00.000+02:00"),
    Column("date", pa.date32(), "in local time", "2025-05-01"),
    Column("hour", pa.int8(), "in local time, 0 to 23", "22", "h"),
    _MID,
    _LABEL,
    Column("recorded_s", _SECONDS, "length of the tagged audio, the effort; never 0", "1800.0", "s"),
    Column("events", pa.int32(), "that begin there", "12"),
    Column("active_s", _SECONDS, "length of events there, of those that begin before, too", "96.0", "s"),
    Column("share", _FLOAT, "active_s / recorded_s", "0.0533"),
    Column("peak_score", _SCORE, "the highest one, 0 to 1, also below the threshold", "0.9102"),
)
HITS = (
    _RECORDING,
    _START,
    _END,
    Column("label", _NAME, "of the example", "curlew"),
    Column("score", _SCORE, "cosine of the angle to the example, of the nearest chunk", "0.8841"),
    _START_TIME,
)
CHANGES = (
    Column("mid", _NAME, "AudioSet's id of the class, or `group/NAME`", "/m/015p6"),
    _LABEL,
    Column("first_threshold", _FLOAT, "score from which the first folder counts as having found it", "0.5"),
    Column("second_threshold", _FLOAT, "the same for the second folder", "0.4"),
    Column("first_rows", pa.int64(), "rows of the first folder that reach the threshold", "1875"),
    Column("second_rows", pa.int64(), "the same for the second folder", "2012"),
    Column("both_s", _SECONDS, "time in which both folders have found it", "3590.4", "s"),
    Column("first_only_s", _SECONDS, "time in which only the first has", "9.6", "s"),
    Column("second_only_s", _SECONDS, "time in which only the second has", "272.64", "s"),
    Column("first_mean", _FLOAT, "mean score in the first folder, over the time compared", "0.0312"),
    Column("second_mean", _FLOAT, "mean score in the second folder", "0.0371"),
    Column("mean_difference", _FLOAT, "second_mean - first_mean", "0.0059"),
)
CURVES = (
    Column("curve", _NAME, "precision_recall_clips, precision_recall_chunks, psds1, ...", "psds1"),
    Column("mid", _NAME, "AudioSet's id of the class; null: all classes together", "/m/015p6", null=True),
    Column("label", _NAME, "its display name; null: all classes together", "Bird", null=True),
    Column("x", _FLOAT, "recall; or effective false positives per hour", "0.25"),
    Column("y", _FLOAT, "precision; or effective true positive ratio", "0.81"),
)
