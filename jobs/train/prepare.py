"""`satpipe prepare` and `satpipe psl`: from audio to training sets, and from training sets to a teacher's labels."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from satpipe.jobs.options.train import PrepareOptions
from satpipe.pipeline import ray_engine
from satpipe.pipeline.ray_engine import Engine, Lost
from satpipe.pipeline.storage import locate, written_whole
from satpipe.pipeline.training_data.listing import Listing, list_clips
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.pipeline.training_data.shards import Shards, ShardWriter, write_shard
from satpipe.pipeline.training_data.teachers import from_table, label_shard
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.model.config import CLASSES
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.registry import resolve

RETRIES = 2
RESULTS_TIMEOUT_S = 1.0
Report = Callable[[int, int], None]
"""Called with the number of shards done, and of all shards."""


@dataclass
class Prepared:
    """Result of a run of `prepare`.

    Attributes:
        listing: The clips of the table or folder.
        clips: Number of clips in the shards.
        problems: Clips that could not be read, each with the reason.
        folder: Folder of the shards.
        classes: Number of classes that occur.
        unseen: Number of the model's classes that do not occur.
    """

    listing: Listing
    clips: int
    problems: dict[str, str]
    folder: Path
    classes: int = 0
    unseen: int = field(default=CLASSES)


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
        table: Label table; see `list_clips`.
        segments: One of AudioSet's CSVs instead.
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
    todo = writer.missing()
    if todo:
        with ray_engine.start(address, workers, "cpu") as ray:
            for shard in todo:
                ray.submit(shard, write_shard, writer.shards[shard], writer.location(shard), retries=RETRIES)
            _finish(ray, len(todo), report)
    shards = Shards(writer.folder)
    seen = {label for labels in shards.labels for label in labels or ()}
    return Prepared(listing, len(shards), shards.problems, writer.folder, len(seen), CLASSES - len(seen))


def label(
    shards_folder: str,
    out: str | Path,
    teacher: str,
    options: SegmentOptions,
    *,
    where: tuple[tuple[str, str], ...] = (),
    workers: int | None = None,
    address: str | None = None,
    report: Report = lambda done, total: None,
) -> tuple[int, list[str]]:
    """Label a training set with a teacher; existing labels are kept.

    Args:
        shards_folder: Folder of the training set.
        out: Folder of the tables.
        teacher: File of weights, or a Parquet table of scores (file or folder).
        options: How clips are cut into segments, and which scores are kept.
        where: (column, value) pairs that rows of a teacher's table must have.
        workers: Maximum number of shards labelled at the same time.
        address: Address of a running Ray cluster.
        report: Called with the progress.

    Returns:
        The number of labelled segments, and the clips that are not in the teacher's table.

    Raises:
        CheckpointError: The teacher cannot be read.
        ConfigError: The teacher's table is of other clips, or the teacher does not read segments of this length.
        OutputError: The folder cannot be written, or contains labels of another teacher, other clips or segments.
    """
    shards = Shards(shards_folder)
    folder = locate(out)
    if teacher.endswith(".parquet") or Path(teacher).is_dir():
        _describe(folder, shards, {"teacher": Path(teacher).name, "where": [list(pair) for pair in where]})
        table, missing = from_table(Path(teacher), set(shards.clips), where)
        with written_whole(folder / "psl-00000-of-00001.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return len(table), missing
    if Path(teacher).exists():
        teacher = str(Path(teacher).absolute())  # the workers of a running cluster have another working directory
    loaded = resolve(teacher)
    if not isinstance(loaded, Checkpoint):
        loaded.adapted(options.piece_s)  # raises if it cannot read such segments
    _describe(folder, shards, {"teacher": Path(teacher).name, "teacher_sha256": loaded.sha256, **asdict(options)})
    count = len(shards.files)
    places = {shard: folder / f"psl-{shard:05d}-of-{count:05d}.parquet" for shard in range(count)}
    todo = [shard for shard, place in places.items() if not place.exists()]
    if todo:
        with ray_engine.start(address, workers, "cpu") as ray:
            for shard in todo:
                arguments = (str(shards.folder), shard, teacher, options, places[shard])
                ray.submit(shard, label_shard, *arguments, retries=RETRIES)
            _finish(ray, len(todo), report)
    return sum(pq.read_metadata(place).num_rows for place in places.values()), []


def _finish(ray: Engine, total: int, report: Report) -> None:
    done = 0
    report(done, total)
    while ray.in_flight:
        for shard, result in ray.results(RESULTS_TIMEOUT_S):
            if isinstance(result, Lost):
                raise OutputError(f"shard {shard} could not be made: {result.reason}")
            done += 1
            report(done, total)


def _describe(folder: Path, shards: Shards, made: dict[str, object]) -> None:
    """Write what the labels were made from, or check that it is unchanged."""
    description = json.loads(json.dumps({**made, "clips": len(shards), "shards": str(shards.folder)}))
    path = folder / "psl.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            before = json.loads(path.read_text())
            changed = [key for key in description if before.get(key) != description[key]]
            if changed:
                raise OutputError(
                    f"{folder} contains labels made with another {changed[0]}: {before.get(changed[0])!r}, not "
                    f"{description[changed[0]]!r}; choose another folder"
                )
            return
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(description, indent=1))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
