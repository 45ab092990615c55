"""Training sets: clips of audio, in their original encoding, in Parquet shards of equal size.

    clips.json                    description of the set's clips
    shard-00000-of-00012.parquet  schemas.CLIPS; the schema's metadata list the files that could not be read

Each shard is written completely or not at all; a run that was stopped continues with the missing shards.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
import soxr
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.recording import AudioInfo
from satpipe.pipeline.recordings.resample import QUALITY, Samples
from satpipe.pipeline.storage import filesystem, is_remote, locate, output_file, written_whole
from satpipe.pipeline.tables.schemas import CLIPS
from satpipe.pipeline.training_data.columns import Lists, Names
from satpipe.pipeline.training_data.listing import Clip, Listing
from satpipe.sat.errors import AudioError, ConfigError, OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

CLIP_S = 10.0
"""Maximum length of a clip; longer files are cut into several clips."""

CLIP_TOLERANCE_S = 0.5  # a file may be this much longer: encoders pad
MIN_CLIP_S = 0.1
ROW_GROUP_CLIPS = 16  # number of clips that are read together
READ_THREADS = 4  # for the files of a set, of which there may be thousands

_NAME = "shard-{:05d}-of-{:05d}.parquet"
_PROBLEMS = b"satpipe_problems"


def claim(folder: Path, name: str, description: dict[str, Any]) -> dict[str, Any]:
    """Write a description of a folder to a JSON file, unless the file exists; return the content of the file.

    Raises:
        OutputError: The folder cannot be read or written.
    """
    path = folder / name
    try:
        if not path.exists():
            with output_file(path, folder) as temporary:
                temporary.write_text(json.dumps(description, indent=1))
        before: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror or error}") from error
    return before


class ShardWriter:
    """A folder of shards in preparation.

    Attributes:
        shards: Clips of each shard.
    """

    def __init__(self, folder: str | Path, listing: Listing, clips_per_shard: int) -> None:
        """Assign clips to shards and describe the set in `clips.json`.

        Raises:
            OutputError: The folder contains another training set, or cannot be written.
        """
        self.folder = locate(folder)
        self.shards = _deal(listing.clips, max(1, -(-len(listing.clips) // clips_per_shard)))
        digest = hashlib.sha256(repr([(c.name, c.size_bytes, c.labels) for c in listing.clips]).encode())
        description = {
            "clips": len(listing.clips),
            "shards": len(self.shards),
            "sha256": digest.hexdigest(),
            "missing": listing.missing,
            "unlabelled_files": listing.unlabelled,
            "unknown_labels": listing.unknown,
        }
        before = claim(self.folder, "clips.json", description)
        if any(before.get(key) != description[key] for key in ("sha256", "shards")):
            raise OutputError(f"{self.folder} contains shards of other clips; choose another folder")

    def location(self, shard: int) -> Path:
        """Return the path of a shard."""
        return self.folder / _NAME.format(shard, len(self.shards))

    def missing(self) -> list[int]:
        """Return the numbers of the shards that do not exist yet."""
        return [shard for shard in range(len(self.shards)) if not self.location(shard).exists()]


def _deal(clips: list[Clip], shards: int) -> list[list[Clip]]:
    """Deal clips out by size, back and forth, so that shards have equally many clips and nearly equally many bytes.

    The order within a shard is pseudo-random: that of the hashes of the clips' names.
    """
    dealt: list[list[Clip]] = [[] for _ in range(shards)]
    for place, clip in enumerate(sorted(clips, key=lambda clip: (clip.size_bytes, clip.name))):
        turn, seat = divmod(place, shards)
        dealt[seat if turn % 2 == 0 else shards - 1 - seat].append(clip)
    for part in dealt:
        part.sort(key=lambda clip: hashlib.md5(clip.name.encode(), usedforsecurity=False).digest())
    return dealt


def write_shard(clips: Sequence[Clip], location: Path) -> tuple[int, dict[str, str]]:
    """Write one shard, on a worker; return the number of clips written, and the reason for each clip left out."""
    problems: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for clip in clips:
        try:
            rows.extend(_rows(clip))
        except AudioError as error:
            problems[clip.name] = str(error)
    table = pa.Table.from_pylist(rows, CLIPS.with_metadata({_PROBLEMS: json.dumps(problems).encode()}))
    with written_whole(location) as temporary:
        pq.write_table(table, temporary, compression="none", row_group_size=ROW_GROUP_CLIPS)  # audio is compressed
    return len(rows), problems


def _rows(clip: Clip) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file: its bytes, or FLAC clips of CLIP_S if it is longer or libsndfile misreads it."""
    info = probe(clip.path, clip.size_bytes)
    if info.problem:
        raise AudioError(info.problem, "truncated")
    recoded = bool(info.container or info.layouts) or info.duration_s > CLIP_S + CLIP_TOLERANCE_S
    for number, (audio, rate_hz, duration_s) in enumerate(_cut(clip.path, info) if recoded else _unchanged(clip.path)):
        name = f"{clip.name}#{number * CLIP_S:g}" if recoded else clip.name
        yield {"clip": name, "audio": audio, "rate_hz": rate_hz, "duration_s": duration_s, "labels": clip.labels}


def _unchanged(path: str) -> Iterator[tuple[bytes, int, float]]:
    audio = filesystem(path).cat_file(path) if is_remote(path) else Path(path).read_bytes()
    samples, rate_hz = decode_clip(audio)
    if len(samples) < MIN_CLIP_S * rate_hz:
        raise AudioError(f"shorter than {MIN_CLIP_S} s", "empty")
    yield audio, rate_hz, len(samples) / rate_hz


def _cut(path: str, info: AudioInfo) -> Iterator[tuple[bytes, int, float]]:
    """Yield clips of a file as mono FLAC at 16 kHz."""
    pending = np.empty(0, np.float32)
    size = int(CLIP_S * SAMPLE_RATE_HZ)
    reader = Reader(path, info)
    for block in reader.blocks():
        pending = np.concatenate([pending, block])
        while len(pending) >= size:
            yield _flac(pending[:size]), SAMPLE_RATE_HZ, CLIP_S
            pending = pending[size:]
    if reader.broken_s is not None:
        raise AudioError(f"decoding stops after {reader.broken_s:.1f} s", "truncated")
    if len(pending) >= MIN_CLIP_S * SAMPLE_RATE_HZ:
        yield _flac(pending), SAMPLE_RATE_HZ, len(pending) / SAMPLE_RATE_HZ


def _flac(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_clip(audio: bytes, rate_hz: int | None = None) -> tuple[Samples, int]:
    """Decode the bytes of a file; return mono samples [n] and their rate: `rate_hz` or that of the file.

    Raises:
        AudioError: The bytes cannot be decoded.
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
    """Return the numbered Parquet files of folders, separated by commas; `command` makes them.

    Raises:
        ConfigError: A folder has no such files, or only some of them.
    """
    found = []
    for folder in map(locate, folders.split(",")):
        files = sorted(folder.glob(f"{prefix}-*-of-*.parquet")) if folder.is_dir() else []
        if not files:
            raise ConfigError(f"{folder} has no {prefix}-00000-of-*.parquet; run `{command}` first")
        wanted = int(files[0].stem.rpartition("-")[2])
        if len(files) != wanted:
            raise ConfigError(
                f"{folder} has only {len(files)} of {wanted} files; run the same `{command}` again to make the rest"
            )
        found += files
    return found


class _Part(NamedTuple):
    """What is read of one shard: the table without audio, the places of its rows, and the files left out."""

    table: pa.Table
    places: npt.NDArray[np.int32]
    problems: dict[str, str]


class Shards:
    """A complete training set.

    Attributes:
        folder: The folders of the set, separated by commas.
        files: The shards.
        clips: Names of the clips, [N].
        labels: Class indices of each clip, [N]; an empty list if it is not labelled.
        labelled: True for each clip with labels, of which there may be none, [N].
        durations_s: Length of each clip, [N].
        places: Shard, row group and row of each clip, [N, 3].
        problems: Files that could not be read, and the reason.
    """

    def __init__(self, folder: str | Path, only: int | None = None) -> None:
        """Read everything except the audio.

        Args:
            folder: Folder of the training set; or several, separated by commas.
            only: Number of the only shard to read; None: all.

        Raises:
            ConfigError: A folder has no training set, or an incomplete one.
        """
        self.folder = ",".join(str(locate(part)) for part in str(folder).split(","))
        self.files = numbered_files(self.folder, "shard", "satpipe prepare")
        read = self.files if only is None else [self.files[only]]
        with ThreadPoolExecutor(READ_THREADS) as pool:
            parts = list(pool.map(self._read, read))
        self.clips = Names([part.table["clip"].combine_chunks() for part in parts])
        self.durations_s = np.concatenate([part.table["duration_s"].to_numpy() for part in parts], dtype=np.float32)
        labels = [part.table["labels"].combine_chunks() for part in parts]
        self.labelled = np.concatenate([np.asarray(each.is_valid()) for each in labels])
        lengths = np.concatenate([np.asarray(pc.fill_null(pc.list_value_length(each), 0)) for each in labels])
        values = np.concatenate([each.flatten().to_numpy().astype(np.int16) for each in labels])
        self.labels = Lists(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), values)
        self.places = np.concatenate([part.places for part in parts])
        self.places[:, 0] = np.repeat(np.arange(len(read)) if only is None else only, [len(p.places) for p in parts])
        self.problems = {name: reason for part in parts for name, reason in part.problems.items()}

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def by_name(self) -> dict[str, int]:
        """The number of each clip, by name."""
        return {name: number for number, name in enumerate(self.clips)}

    def audio(self, numbers: npt.NDArray[np.int64]) -> dict[int, bytes]:
        """Return the compressed audio of clips, by number; each row group is read once."""
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

    def decode(self, number: int, audio: bytes, rate_hz: int = SAMPLE_RATE_HZ) -> Samples:
        """Decode the audio of a clip.

        Raises:
            ConfigError: It cannot be decoded.
        """
        try:
            return decode_clip(audio, rate_hz)[0]
        except AudioError as error:
            raise ConfigError(f"{self.clips[number]} in {self.files[self.places[number, 0]]} is {error}") from error

    def _read(self, path: Path) -> "_Part":
        with self._open(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            table = file.read(["clip", "labels", "duration_s"], use_threads=False)
            problems = json.loads((file.schema_arrow.metadata or {}).get(_PROBLEMS, b"{}"))
        groups = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.concatenate([np.arange(0), *map(np.arange, sizes)])
        return _Part(table, np.stack([np.zeros_like(groups), groups, rows], 1).astype(np.int32), problems)

    @contextmanager
    def _open(self, path: Path) -> Iterator[pq.ParquetFile]:
        try:
            with path.open("rb") as source, pq.ParquetFile(source) as file:
                yield file
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error


def _row_group(file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    # Without Arrow's threads: a thread that is releasing a Python file's bytes when the program exits would abort it.
    return file.read_row_group(group, columns, use_threads=False)
