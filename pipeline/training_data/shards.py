"""Training sets: clips of audio, as compressed as they came, in Parquet shards of equal size.

    clips.json                    what the set was made of
    shard-00000-of-00012.parquet  tables.CLIPS; what could not be read is listed in the schema's metadata

Shards are written one by one, each whole or not at all, so that a run that was stopped goes on with those that are
missing.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr
from satpipe.pipeline.recordings.decode import QUALITY, AudioInfo, Reader, Samples, probe
from satpipe.pipeline.storage import filesystem, is_remote, locate, written_whole
from satpipe.pipeline.tables.schemas import CLIPS
from satpipe.pipeline.training_data.listing import CLIP_TOLERANCE_S, Clip, Listing
from satpipe.sat.errors import AudioError, ConfigError, OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

CLIP_S = 10.0
"""Longest clip; what is longer is cut."""


MIN_CLIP_S = 0.1


ROW_GROUP_CLIPS = 16  # clips that are read together


_NAME = "shard-{:05d}-of-{:05d}.parquet"


_PROBLEMS = b"satpipe_problems"


class ShardWriter:
    """A folder of shards that is being made."""

    def __init__(self, folder: str | Path, listing: Listing, clips_per_shard: int) -> None:
        """Decide which clip goes where.

        Raises:
            OutputError: The folder holds another training set.
        """
        self.folder = locate(folder)
        shards = max(1, -(-len(listing.clips) // clips_per_shard))
        self.shards = _deal(listing.clips, shards)
        digest = hashlib.sha256(repr([(i.clip, i.size_bytes, i.labels) for i in listing.clips]).encode())
        self._description = {
            "clips": len(listing.clips),
            "shards": shards,
            "sha256": digest.hexdigest(),
            "missing": listing.missing,
            "unlabelled_files": listing.unlabelled,
            "unknown_labels": listing.unknown,
        }
        path = self.folder / "clips.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                before = json.loads(path.read_text())
                if before.get("sha256") != self._description["sha256"] or before.get("shards") != shards:
                    raise OutputError(f"{self.folder} holds the shards of other clips; choose another folder")
            else:
                with written_whole(path) as temporary:
                    temporary.write_text(json.dumps(self._description, indent=1))
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be written: {error.strerror or error}") from error

    def location(self, shard: int) -> Path:
        """Where a shard is."""
        return self.folder / _NAME.format(shard, len(self.shards))

    def missing(self) -> list[int]:
        """Shards that are not there yet."""
        return [shard for shard in range(len(self.shards)) if not self.location(shard).exists()]


def write_shard(clips: Sequence[Clip], location: Path) -> tuple[int, dict[str, str]]:
    """Write one shard; a plain function for a worker.

    Returns:
        How many clips it has, and why others are not in it.
    """
    problems: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for clip in clips:
        try:
            rows.extend(_rows(clip))
        except AudioError as error:
            problems[clip.clip] = str(error)
    schema = CLIPS.with_metadata({_PROBLEMS: json.dumps(problems).encode()})
    table = pa.Table.from_pylist(rows, schema)
    with written_whole(location) as temporary:
        pq.write_table(table, temporary, compression="none", row_group_size=ROW_GROUP_CLIPS)  # audio is compressed
    return len(rows), problems


def _rows(clip: Clip) -> Iterator[dict[str, Any]]:
    """Rows of one file: its bytes as they are, or pieces of CLIP_S as FLAC where it is longer."""
    info = probe(clip.path, clip.size_bytes)
    if info.problem:
        raise AudioError(info.problem, "truncated")
    labels = None if clip.labels is None else list(clip.labels)
    if info.container or info.duration_s > CLIP_S + CLIP_TOLERANCE_S:
        for number, (audio, rate_hz, duration_s) in enumerate(_cut(clip.path, info)):
            name = f"{clip.clip}#{number * CLIP_S:g}"
            yield {"clip": name, "audio": audio, "rate_hz": rate_hz, "duration_s": duration_s, "labels": labels}
        return
    audio = filesystem(clip.path).cat_file(clip.path) if is_remote(clip.path) else Path(clip.path).read_bytes()
    samples, rate_hz = decode_clip(audio)
    if len(samples) < MIN_CLIP_S * rate_hz:
        raise AudioError(f"shorter than {MIN_CLIP_S} s", "empty")
    duration_s = len(samples) / rate_hz
    yield {"clip": clip.clip, "audio": audio, "rate_hz": rate_hz, "duration_s": duration_s, "labels": labels}


def _cut(path: str, info: AudioInfo) -> Iterator[tuple[bytes, int, float]]:
    """Yield pieces of a long file, or of one that only FFmpeg reads, as mono FLAC at 16 kHz."""
    pending = np.empty(0, np.float32)
    size = int(CLIP_S * SAMPLE_RATE_HZ)
    reader = Reader(path, info)
    for block in reader.blocks():
        pending = np.concatenate([pending, block])
        while len(pending) >= size:
            yield _flac(pending[:size]), SAMPLE_RATE_HZ, CLIP_S
            pending = pending[size:]
    if reader.broken_s is not None:
        raise AudioError(f"it breaks off after {reader.broken_s:.1f} s", "truncated")
    if len(pending) >= MIN_CLIP_S * SAMPLE_RATE_HZ:
        yield _flac(pending), SAMPLE_RATE_HZ, len(pending) / SAMPLE_RATE_HZ


def _flac(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_clip(audio: bytes, rate_hz: int | None = None) -> tuple[Samples, int]:
    """Decode the bytes of a file to mono samples, at `rate_hz` or its own rate.

    Returns:
        Samples [n], and their rate.

    Raises:
        AudioError: They cannot be decoded.
    """
    try:
        samples, own_rate_hz = soundfile.read(io.BytesIO(audio), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"not audio that libsndfile reads: {error}") from error
    mono = np.nan_to_num(samples.mean(1), nan=0.0, posinf=0.0, neginf=0.0)
    if rate_hz is not None and rate_hz != own_rate_hz:
        mono = soxr.resample(mono, own_rate_hz, rate_hz, quality=QUALITY)
    return np.ascontiguousarray(mono, np.float32), rate_hz or own_rate_hz


def numbered_files(folders: str, prefix: str, command: str) -> list[Path]:
    """Return the numbered files of folders, separated by commas.

    Raises:
        ConfigError: There are none in one of them, or not all.
    """
    found = []
    for folder in map(locate, folders.split(",")):
        files = sorted(folder.glob(f"{prefix}-*-of-*.parquet")) if folder.is_dir() else []
        if not files:
            raise ConfigError(f"there is no {prefix}-00000-of-*.parquet in {folder}; `{command}` makes them")
        wanted = int(files[0].stem.rpartition("-")[2])
        if len(files) != wanted:
            raise ConfigError(f"{folder} has {len(files)} of {wanted} files; the same `{command}` makes the others")
        found += files
    return found


class Shards:
    """A training set that is there: what is in it, and the audio of its clips."""

    def __init__(self, folder: str | Path) -> None:
        """Read everything but the audio.

        Args:
            folder: Of the training set; or of several, separated by commas.

        Raises:
            ConfigError: There is no training set in a folder, or it is not complete.
        """
        self.folder = ",".join(str(locate(part)) for part in str(folder).split(","))
        self.files = numbered_files(self.folder, "shard", "satpipe prepare")
        names: list[str] = []
        labels: list[list[int] | None] = []
        places = []
        durations: list[float] = []
        self.problems: dict[str, str] = {}
        for shard, path in enumerate(self.files):
            with self._open(path) as file:
                self.problems |= json.loads((file.schema_arrow.metadata or {}).get(_PROBLEMS, b"{}"))
                for group in range(file.num_row_groups):
                    table = _row_group(file, group, ["clip", "labels", "duration_s"])
                    names += table["clip"].to_pylist()
                    labels += table["labels"].to_pylist()
                    durations += table["duration_s"].to_pylist()
                    places += [(shard, group, row) for row in range(len(table))]
        self.clips = names
        self.labels = labels
        self.durations_s = np.array(durations, np.float32)
        self.places = np.array(places, np.int32).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Number of each clip, by its name."""
        return {name: number for number, name in enumerate(self.clips)}

    def audio(self, numbers: npt.NDArray[np.int64]) -> dict[int, bytes]:
        """Return the compressed audio of clips by number; every row group is read once."""
        found: dict[int, bytes] = {}
        places = self.places[numbers]
        for shard in np.unique(places[:, 0]):
            with self._open(self.files[shard]) as file:
                here = np.nonzero(places[:, 0] == shard)[0]
                for group in np.unique(places[here, 1]):
                    column = _row_group(file, group, ["audio"])["audio"]
                    for at in here[places[here, 1] == group]:
                        found[int(numbers[at])] = column[int(places[at, 2])].as_py()
        return found

    @contextmanager
    def _open(self, path: Path) -> Iterator[pq.ParquetFile]:
        try:
            with path.open("rb") as source, pq.ParquetFile(source) as file:
                yield file
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error


def _row_group(file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    # Without Arrow's threads: one that still lets go of a Python file's bytes when the program ends aborts it.
    return file.read_row_group(group, columns, use_threads=False)


def _deal(clips: list[Clip], shards: int) -> list[list[Clip]]:
    """Deal clips out by size, to and fro, so that shards have as many clips and nearly as many bytes; then mix each."""
    dealt: list[list[Clip]] = [[] for _ in range(shards)]
    for place, clip in enumerate(sorted(clips, key=lambda clip: (clip.size_bytes, clip.clip))):
        turn, seat = divmod(place, shards)
        dealt[seat if turn % 2 == 0 else shards - 1 - seat].append(clip)
    for part in dealt:
        part.sort(key=lambda clip: hashlib.md5(clip.clip.encode(), usedforsecurity=False).digest())
    return dealt
