"""Spark reads every table: `pip install pyspark`, and Java 17 or later."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from satpipe.pipeline.tables.upgrade import upgrade

SparkSession = pytest.importorskip("pyspark.sql", reason="Spark: pip install pyspark").SparkSession
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("java"), reason="Spark: Java 17 or later, such as apt-get install openjdk-17-jre"
    ),
]


OLD = Path(__file__).parents[1] / "out_0_1_0"


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of the present version."""
    folder = tmp_path_factory.mktemp("spark") / "out"
    shutil.copytree(OLD, folder)
    upgrade(folder, json.loads((folder / "run.json").read_text()))
    return folder


@pytest.mark.parametrize("table", ["tags", "scores", "embeddings", "recordings", "own/mine"])
def test_spark_reads_a_table(spark: Any, out: Path, table: str) -> None:
    found, rows = spark.read.parquet(str(out / table)), pd.read_parquet(out / table)
    assert found.columns == list(rows)
    kinds = dict(found.dtypes)
    taken = found.collect()
    for name in rows:
        if kinds[name] in ("string", "int", "bigint", "float", "double"):
            values = rows[name].astype(object)
            assert [row[name] for row in taken] == values.where(values.notna(), None).tolist(), name
        elif kinds[name] == "array<float>":
            np.testing.assert_array_equal([row[name] for row in taken], np.stack(rows[name]))
        elif kinds[name] == "timestamp":
            micros = [row[0] for row in found.selectExpr(f"unix_micros({name})").collect()]
            assert micros == rows[name].astype("datetime64[us, UTC]").astype("int64").tolist()
        else:
            assert name in ("files", "warnings")


def test_spark_joins_tags_with_the_time_of_their_recordings(spark: Any, out: Path) -> None:
    for table in ("tags", "recordings"):
        spark.read.parquet(str(out / table)).createOrReplaceTempView(table)
    (row,) = spark.sql(
        "SELECT min(unix_seconds(r.time) + t.start_s) AS first FROM tags t JOIN recordings r USING (recording) "
        "WHERE t.label = 'Thunder' AND t.run_id = r.run_id"
    ).collect()
    tags, recordings = (pd.read_parquet(out / table) for table in ("tags", "recordings"))
    thunder = tags[tags.label == "Thunder"].merge(recordings, on="recording")
    start = thunder.time + pd.to_timedelta(thunder.start_s, unit="s")
    assert row["first"] == pytest.approx(start.min().timestamp())
