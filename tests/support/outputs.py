"""Output folders with scores that a test chooses, written as `satpipe tag` does."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.sat.labels import find, weak_labels
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.cutting import chunk_samples

CHUNK_SAMPLES, CHUNK_S = 30_720, 1.92
OPTIONS = TableOptions(
    run_id="one", model="SAT_T_2s@abc", chunk_samples=CHUNK_SAMPLES, threshold=0.5, top_k=3, scores=True
)
IDENTITY = {"model_sha256": "abc", "arch": "SAT_T_2s", "cut": "gapless", "precision": "fp32", "scores": True}
LABELS = [{"index": label.index, "mid": label.mid, "name": label.name} for label in weak_labels()]
RUN = {"id": "one", "identity": IDENTITY, "labels": LABELS, "finished": "today"}
Scores = npt.NDArray[np.float32]


def scores_of(chunks: int, **classes: list[float]) -> Scores:
    """Return scores [chunks, 527]: the given values of classes by name, from the first chunk on; 0 elsewhere."""
    scores = np.zeros((chunks, CLASSES), np.float32)
    for name, values in classes.items():
        scores[: len(values), find(name).index] = values
    return scores


def write_output(
    folder: str | Path,
    *batches: Mapping[str, Scores],
    run: dict[str, Any] = RUN,
    done: bool = True,
    died: Mapping[str, Collection[int]] | None = None,
    filled: float = 0.5,
) -> Output:
    """Write batches of recordings with their scores [n, 527], in chunks of the model in `run`.

    Args:
        folder: The output folder.
        batches: Scores of recordings by name; a recording without chunks has the status `empty`.
        run: Content of `run.json`.
        done: Finish the run: nothing stays staged.
        died: Chunks of recordings that are missing because a worker died.
        filled: Share of the last chunk of each recording that has sound.
    """
    output, identity = Output(folder), run.get("identity", {})
    by_arch = chunk_samples(get_config(identity.get("arch", "SAT_T_2s")), identity.get("cut", "gapless"))
    size = run.get("model", {}).get("chunk_samples", by_arch)
    options = replace(
        OPTIONS,
        chunk_samples=size,
        **{key: identity[key] for key in ("threshold", "top_k", "scores") if key in identity},
    )
    with output.claim(run):
        for batch in batches:
            there = {n: np.setdiff1d(np.arange(len(s)), list((died or {}).get(n, ()))) for n, s in batch.items()}
            tagged = [name for name, chunks in there.items() if len(chunks)]
            with output.staging.stage() as file:
                for place, name in enumerate(tagged):
                    chunks = there[name]
                    file.write(schemas.staged_table([place] * len(chunks), chunks.tolist(), batch[name][chunks]))
                outcomes = [SpanOutcome((name, 1, 0, 0, None), len(there[name]), 1) for name in tagged]
                spans = dict(zip(tagged, file.conclude(outcomes), strict=True))
            finished = [
                Finished(
                    _row(name, len(scores), len(there[name]), (len(scores) - 1 + filled) * size / SAMPLE_RATE_HZ),
                    [spans[name]] if name in spans else [],
                )
                for name, scores in batch.items()
            ]
            output.batches.publish(finished, options, new_name())
        if done:
            output.finish()
    return output


def _row(name: str, chunks: int, there: int, duration_s: float) -> dict[str, Any]:
    if not chunks:
        return schemas.recording_row(name, 1, 1, "empty", "")
    known = {"duration_s": duration_s, "rate_hz": 16_000, "channels": 1, "chunks": there}
    return schemas.recording_row(name, 1, 1, "ok" if chunks == there else "worker died", "", **known)


def set_files(folder: str | Path, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Set `size_bytes`, `modified` (microseconds since 1970) and `files` of all recordings in a folder's table."""
    for path in (Path(folder) / "recordings").glob("*.parquet"):
        table = pq.read_table(path)
        names = table["recording"].to_pylist()
        for column in ("size_bytes", "modified", "files"):
            field = table.schema.field(column)
            values = pa.array([states[name][column] for name in names]).cast(field.type)
            table = table.set_column(table.schema.names.index(column), field, values)
        pq.write_table(table, path)


def set_clock(folder: str | Path, clock: Mapping[str, tuple[datetime, float | None]]) -> None:
    """Set the start times and clock rates of recordings in the table."""
    for path in (locate(folder) / "recordings").glob("*.parquet"):
        with path.open("rb") as file:
            table = pq.read_table(file)
        known = [clock.get(name, (None, None)) for name in table["recording"].to_pylist()]
        columns = {"time": pa.array([time for time, _ in known], pa.timestamp("us", tz="UTC"))}
        columns |= {"clock_rate": pa.array([rate for _, rate in known], pa.float64())}
        for name, column in columns.items():
            if name in table.column_names:
                table = table.drop(name)
            table = table.append_column(name, column)
        with path.open("wb") as file:
            pq.write_table(table, file)
