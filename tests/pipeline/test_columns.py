"""The columns of tables: each has a meaning, and an example of its type."""

from inspect import getmembers

import pyarrow as pa
import pytest
from satpipe.pipeline.tables import columns
from satpipe.pipeline.tables.columns import Column
from satpipe.pipeline.tables.schemas import VERSION
from texts import ROOT

TABLES = {
    name: table
    for name, table in getmembers(columns)
    if isinstance(table, tuple) and all(isinstance(each, Column) for each in table)
}


@pytest.mark.parametrize("table", TABLES)
def test_examples_are_of_the_type_of_their_column(table: str) -> None:
    for column in TABLES[table]:
        kind = column.kind.value_type if pa.types.is_dictionary(column.kind) else column.kind
        assert column.example, column.name
        if not (pa.types.is_nested(kind) or pa.types.is_large_binary(kind)):
            assert pa.scalar(column.example).cast(kind).is_valid


@pytest.mark.parametrize("table", TABLES)
def test_names_that_end_in_a_unit_have_it(table: str) -> None:
    units = {"s": "s", "hz": "Hz", "bytes": "bytes"}
    for column in TABLES[table]:
        assert column.unit == units.get(column.name.split("_")[-1], column.unit)
        assert (column.unit == "UTC") == pa.types.is_timestamp(column.kind)


def test_the_documentation_states_the_version_that_is_written() -> None:
    assert f"writes version {VERSION}." in (ROOT / "reports/docs/reference/tables.md").read_text()
