"""The column of scores, read page by page: the same numbers as Arrow reads, and none from a damaged page."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from satpipe.pipeline.tables.schemas import Made, score_rows
from satpipe.pipeline.tables.score_pages import read_score_pages

CHUNKS = np.arange(300, dtype=np.int32)
TABLE = score_rows(
    pa.array(["a.wav"] * 300).dictionary_encode(),
    CHUNKS,
    np.random.default_rng(0).random((300, 527), np.float32),
    (CHUNKS * 2.0, CHUNKS * 2.0 + 2),
    Made("one", "SAT_T_2s@abc"),
)
HALVES = TABLE["scores"].cast(pa.list_(pa.float16(), 527))  # as satpipe 0.1.0 wrote them
DEFAULT: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["recording"],
    "write_page_checksum": True,
    "column_encoding": {"scores.list.element": "BYTE_STREAM_SPLIT"},
}
PLAIN: dict[str, Any] = DEFAULT | {"column_encoding": None}


def pages(path: Path) -> list[npt.NDArray[np.float16] | None]:
    metadata = pq.read_metadata(path)
    with path.open("rb") as file:
        return [read_score_pages(file, metadata.row_group(group)) for group in range(metadata.num_row_groups)]


@pytest.mark.parametrize("options", [{}, {"data_page_size": 10_000}, {"row_group_size": 77}])
def test_the_scores_are_those_that_arrow_reads(tmp_path: Path, options: dict[str, Any]) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", **DEFAULT, **options)
    expected = TABLE["scores"].combine_chunks().flatten().to_numpy().reshape(-1, 527)
    np.testing.assert_array_equal(np.concatenate(pages(tmp_path / "a.parquet")), expected)
    pq.write_table(TABLE.set_column(4, "scores", HALVES), tmp_path / "b.parquet", **PLAIN, **options)
    np.testing.assert_array_equal(np.concatenate(pages(tmp_path / "b.parquet")), expected)


def test_every_half_precision_number_is_read_exactly(tmp_path: Path) -> None:
    halves = np.resize(np.arange(2**16, dtype=np.uint16).view(np.float16), (125, 527))
    for values in (halves, np.resize(halves[(halves >= 0) & (halves <= 1)], (30, 527))):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), 527)
        pq.write_table(pa.table({"scores": lists}), tmp_path / "a.parquet", **DEFAULT | {"use_dictionary": []})
        np.testing.assert_array_equal(np.concatenate(pages(tmp_path / "a.parquet")), values)


@pytest.mark.parametrize("at_least", [1e-6, 0.1, 0.125, 0.3, 0.5, 0.51, 1.0])
@pytest.mark.parametrize("columns", [None, [500, 3, 3]])
def test_scores_that_reach_a_minimum_are_read_exactly(
    tmp_path: Path, at_least: float, columns: list[int] | None
) -> None:
    values = (TABLE["scores"].combine_chunks().flatten().to_numpy().reshape(-1, 527) ** 4).astype(np.float16)
    values[:, :4] = at_least
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), 527)
    pq.write_table(TABLE.set_column(4, "scores", lists), tmp_path / "a.parquet", **DEFAULT)
    wanted = None if columns is None else np.array(columns)
    with (tmp_path / "a.parquet").open("rb") as file:
        group = pq.read_metadata(tmp_path / "a.parquet").row_group(0)
        found = read_score_pages(file, group, wanted, at_least)
    assert found is not None
    expected = values if columns is None else values[:, columns]
    reach = expected >= at_least
    np.testing.assert_array_equal(found[reach], expected[reach])
    assert np.all((found == expected) | ((found == 0) & ~reach))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0, 2.0])
def test_what_is_no_score_is_not_taken_for_a_low_one(tmp_path: Path, wrong: float) -> None:
    values = np.full((30, 527), 0.01, np.float16)
    values[7, 400] = wrong
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), 527)
    pq.write_table(pa.table({"scores": lists}), tmp_path / "a.parquet", **DEFAULT | {"use_dictionary": []})
    with (tmp_path / "a.parquet").open("rb") as file:
        found = read_score_pages(file, pq.read_metadata(tmp_path / "a.parquet").row_group(0), None, 0.3)
    assert found is not None
    np.testing.assert_array_equal(found[7, 400], np.float16(wrong))


@pytest.mark.parametrize(
    "options",
    [{"compression": "snappy"}, {"use_dictionary": True, "column_encoding": None}, {"data_page_version": "2.0"},
     {"column_encoding": None}],
)  # fmt: skip
def test_what_is_written_in_another_way_is_left_to_arrow(tmp_path: Path, options: dict[str, Any]) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", **DEFAULT | options)
    assert pages(tmp_path / "a.parquet") == [None]


def test_missing_scores_and_shorter_lists_are_left_to_arrow(tmp_path: Path) -> None:
    for scores in ([[0.5] * 526 + [None]], [[0.5] * 526]):
        lists = pa.array(scores, pa.list_(pa.float32()))
        pq.write_table(pa.table({"scores": lists}), tmp_path / "a.parquet", **DEFAULT | {"use_dictionary": False})
        assert pages(tmp_path / "a.parquet") == [None]


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", **DEFAULT)
    column = pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(4)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    for place in (column.data_page_offset, column.data_page_offset + column.total_compressed_size - 1):
        damaged = content.copy()
        damaged[place] ^= 255
        (tmp_path / "b.parquet").write_bytes(damaged)
        assert pages(tmp_path / "b.parquet") == [None]


@pytest.mark.parametrize("columns", [[3], [500, 2, 2, 7], []])
def test_scores_of_some_classes_are_those_of_all(tmp_path: Path, columns: list[int]) -> None:
    for name, table, options in (
        ("a", TABLE, DEFAULT),
        ("b", TABLE.set_column(4, "scores", HALVES), PLAIN),
    ):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, **options, data_page_size=10_000)
        with path.open("rb") as file:
            found = read_score_pages(file, pq.read_metadata(path).row_group(0), np.array(columns, np.int64))
        np.testing.assert_array_equal(found, np.concatenate(pages(path))[:, columns])
