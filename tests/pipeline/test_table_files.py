"""Tables as text: CSV and TSV that programs read back as they were."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.pipeline.tables.table_files import table_writer

TIME = datetime(2026, 5, 1, 23, 59, 58, tzinfo=UTC)
ROWS = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1) | st.just("a, b.wav"),
        st.none() | st.floats(0, 1e6),
        st.none() | st.floats(0, 1, width=16),
        st.none() | st.integers(-5, 10**12),
    ),
    min_size=1,
)
SCHEMA = pa.schema(
    {
        "recording": pa.dictionary(pa.int32(), pa.string()),
        "onset_s": pa.float64(),
        "score": pa.float32(),
        "n": pa.int64(),
        "time": pa.timestamp("s", "UTC"),
    }
)


@pytest.mark.parametrize(("kind", "separator"), [("csv", ","), ("tsv", "\t")])
@given(rows=ROWS)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_what_is_read(
    kind: str, separator: str, rows: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path: Path = tmp_path_factory.mktemp("table") / f"t.{kind}"
    columns = [*map(list, zip(*rows, strict=True)), [TIME] * len(rows)]
    with table_writer(path, kind, SCHEMA) as add:
        add(pa.table(list(map(pa.array, columns, SCHEMA.types)), SCHEMA))
    with path.open(encoding="utf-8", newline="") as file:
        head, *read = csv.reader(file, delimiter=separator)
    assert head == SCHEMA.names
    assert [row[0] for row in read] == columns[0]
    for place, digits in ((1, 6), (2, 4)):
        assert [float(row[place]) if row[place] else None for row in read] == [
            None if value is None else pytest.approx(value, abs=0.51 * 10**-digits, rel=1e-15)
            for value in columns[place]
        ]
        assert all(not row[place] or "." in row[place] or "e" in row[place] for row in read)
    assert [int(row[3]) if row[3] else None for row in read] == columns[3]
    assert {row[4] for row in read} == {"2026-05-01T23:59:58Z"}
