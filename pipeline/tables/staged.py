"""Spans that are tagged but not yet in the tables."""

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

SpanKey = tuple[str, int, int, int, int | None]


@dataclass
class SpanOutcome:
    """What became of a span.

    Attributes:
        key: Of the span.
        chunks: Rows it has in the unit's table.
        frames: Frames of the file up to where this span has read it.
        status: Of the recording, as far as this span knows; one of `tables.STATUSES`.
        reason: In words, for the recordings table.
        broken: Decoding broke off before the end that the header announces, so that the spans after it, and how many
            there are, cannot be believed.
        file: In which file of a deployment; "" of a single file.
    """

    key: SpanKey
    chunks: int = 0
    frames: int = 0
    status: str = "ok"
    reason: str = ""
    broken: bool = False
    file: str = ""


_OUTCOMES = b"satpipe.outcomes"


@dataclass
class StagedSpan:
    """A span whose scores are staged.

    Attributes:
        file: Name of the staged file.
        place: Of the span in that file.
        outcome: What became of it.
        spans: How many spans share that file.
    """

    file: str
    place: int
    outcome: SpanOutcome
    spans: int


class StagedFile:
    """A staged file that is being written."""

    def __init__(self, name: str, writer: pq.ParquetWriter) -> None:
        self._name = name
        self._writer = writer

    def write(self, table: pa.Table) -> None:
        """Add rows, schema `schemas.STAGED`."""
        self._writer.write_table(table)

    def conclude(self, outcomes: list[SpanOutcome]) -> list[StagedSpan]:
        """Add what became of the unit's spans; the file is of use only with it."""
        self._writer.add_key_value_metadata({_OUTCOMES: json.dumps([vars(outcome) for outcome in outcomes])})
        return [StagedSpan(self._name, place, outcome, len(outcomes)) for place, outcome in enumerate(outcomes)]
