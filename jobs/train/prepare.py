"""`satpipe prepare` and `satpipe psl`: make training sets from audio, and label them with a teacher."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from satpipe.jobs.options.train import LabelOptions, PrepareOptions
from satpipe.pipeline import ray_engine
from satpipe.pipeline.ray_engine import Lost
from satpipe.pipeline.storage import locate, written_whole
from satpipe.pipeline.training_data.listing import Listing, list_clips
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.pipeline.training_data.shards import Shards, ShardWriter, claim, write_shard
from satpipe.pipeline.training_data.teachers import from_table, label_shard
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.registry import resolve

RESULTS_TIMEOUT_S = 1.0
Report = Callable[[int, int], None]
"""Called with the number of finished shards and the number of all shards."""


@dataclass
class Prepared:
    """Result of a run of `prepare`.

    Attributes:
        listing: The clips of the table or folder.
        clips: Number of clips in the shards.
        problems: Clips that could not be read, and the reason.
        folder: Folder of the shards.
        classes: Number of classes that occur.
    """

    listing: Listing
    clips: int
    problems: dict[str, str]
    folder: Path
    classes: int


def prepare(
    folder: str,
    out: str | Path,
    *,
    table: Path | None = None,
    segments: Path | None = None,
    where: Sequence[tuple[str, str]] = (),
    clips_per_shard: int = PrepareOptions.clips_per_shard,
    workers: int | None = None,
    address: str | None = None,
    report: Report = lambda done, total: None,
) -> Prepared:
    """Make a training set; existing shards are kept.

    Args:
        folder: Folder of audio.
        out: Folder of the shards.
        table: Table of labels; see `list_clips`.
        segments: One of AudioSet's CSV files, instead of a table.
        where: (column, value) pairs that rows of the table must have.
        clips_per_shard: Approximate number of clips per shard.
        workers: Maximum number of shards made at the same time.
        address: Address of a running Ray cluster.
        report: Called with the progress.

    Raises:
        ConfigError: A file or column is missing, or the table and the folder do not match.
        OutputError: The folder cannot be written, or contains other shards.
    """
    listing = list_clips(folder, table, segments, where)
    writer = ShardWriter(out, listing, clips_per_shard)
    tasks = {shard: (write_shard, writer.shards[shard], writer.location(shard)) for shard in writer.missing()}
    _run(tasks, workers, address, report)
    shards = Shards(writer.folder)
    return Prepared(listing, len(shards), shards.problems, writer.folder, len(np.unique(shards.labels.values)))


def label(
    shards_folder: str,
    out: str | Path,
    teacher: str,
    options: SegmentOptions,
    *,
    where: tuple[tuple[str, str], ...] = (),
    workers: int | None = None,
    address: str | None = None,
    device: str = LabelOptions.device,
    report: Report = lambda done, total: None,
) -> tuple[int, list[str]]:
    """Label a training set with a teacher; existing labels are kept.

    Args:
        shards_folder: Folder of the training set.
        out: Folder of the labels.
        teacher: File of weights, or a Parquet table of scores (file or folder).
        options: How clips are cut into segments, and which scores are kept.
        where: (column, value) pairs that rows of a teacher's table must have.
        workers: Maximum number of shards labelled at the same time.
        address: Address of a running Ray cluster.
        device: Where the teacher runs: cpu, cuda, or auto for GPUs if there are any.
        report: Called with the progress.

    Returns:
        The number of labelled segments, and the clips that are not in the teacher's table.

    Raises:
        CheckpointError: The teacher cannot be read.
        ConfigError: The teacher's table is for other clips, or the teacher cannot read segments of this length.
        OutputError: The folder cannot be written, or contains labels by another teacher or of other clips or segments.
    """
    shards = Shards(shards_folder)
    folder = locate(out)
    if teacher.endswith(".parquet") or Path(teacher).is_dir():
        if options.chunks:
            raise ConfigError(f"--chunk-s needs a teacher that hears the clips; {teacher} is a table of scores")
        describe(folder, shards, {"teacher": Path(teacher).name, "where": [list(pair) for pair in where]})
        table, missing = from_table(Path(teacher), set(shards.clips), where)
        with written_whole(folder / "psl-00000-of-00001.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return len(table), missing
    if Path(teacher).exists():
        teacher = str(Path(teacher).absolute())  # the workers of a running cluster have another working directory
    loaded = resolve(teacher)
    if not isinstance(loaded, Checkpoint):
        for _, length_s in [(0.0, options.piece_s), *options.chunk_spans_s(0.0)]:
            loaded.adapted(length_s)  # raises if it cannot read such segments
    made = {"teacher": Path(teacher).name, "teacher_sha256": loaded.sha256}
    describe(folder, shards, {**made, **options.described()})
    count = len(shards.files)
    places = {shard: folder / f"psl-{shard:05d}-of-{count:05d}.parquet" for shard in range(count)}
    tasks = {
        shard: (label_shard, shards.folder, shard, teacher, options, place, device)
        for shard, place in places.items()
        if not place.exists()
    }
    _run(tasks, workers, address, report, device)
    return sum(pq.read_metadata(place).num_rows for place in places.values()), []


def _run(
    tasks: dict[int, tuple[Any, ...]], workers: int | None, address: str | None, report: Report, device: str = "cpu"
) -> None:
    """Run the task of each shard, a function and its arguments, on workers."""
    if not tasks:
        return
    with ray_engine.start(address, workers, device) as ray:
        for shard, task in tasks.items():
            ray.submit(shard, *task, retries=ray_engine.RETRIES)
        done = 0
        report(done, len(tasks))
        while ray.in_flight:
            for shard, result in ray.results(RESULTS_TIMEOUT_S):
                if isinstance(result, Lost):
                    raise OutputError(f"shard {shard} could not be made: {result.reason}")
                done += 1
                report(done, len(tasks))


def describe(folder: Path, shards: Shards, made: dict[str, object]) -> None:
    """Write a description of the labels, or check that it is unchanged."""
    description = {**made, "clips": len(shards), "shards": shards.folder}
    before = claim(folder, "psl.json", description)
    for key, value in description.items():
        if before.get(key) != value:
            raise OutputError(
                f"{folder} contains labels made with another {key}: {before.get(key)!r}, not {value!r}; choose another "
                "folder"
            )
