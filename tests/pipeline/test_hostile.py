"""Damaged files, lying headers, odd names: each file ends with a status, soon and in little memory."""

import os
import resource
import struct
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from audio import claim_flac_frames, noise, write
from encoded import encode
from helpers import model_by_rule
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.recordings.probing import Unusable, probe_batch
from satpipe.pipeline.recordings.recording import recordings_of
from satpipe.pipeline.tables.schemas import STATUSES
from satpipe.pipeline.tagging.spans import spans_of
from satpipe.pipeline.tagging.tag_spans import tag_task
from satpipe.sat.model.config import get_config
from satpipe.sat.taggers.sat import SATTagger

SMALL = replace(get_config("SAT_T_2s"), name="small", width=24, heads=2, depth=3)
FRAMES = 12_000
RATE_HZ = 16_000
SPAN_S = 5.0  # a header that overstates the length makes for many spans
MOST_SPANS = 8  # of these, looked at
SECONDS = 20.0  # a file takes a few hundredths; this machine may be busy
GROWTH_MB = 150.0


FILES = {
    "wav": ("WAV", "PCM_16"),
    "float": ("WAV", "FLOAT"),
    "adpcm": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
CONTAINERS = {
    "m4a": ("ipod", "aac"),
    "mov": ("mov", "pcm_s16le"),
    "webm": ("webm", "libopus"),
    "mka": ("matroska", "flac"),
    "wma": ("asf", "wmav2"),
    "aac": ("adts", "aac"),
    "wv": ("wv", "wavpack"),
}
HEADER_BYTES = 256
EXTREMES = [byte * size for byte in (b"\xff", b"\0", b"\x7f") for size in (1, 2, 4, 8)]
W64_DATA, W64_FORMAT = b"data\xf3\xac\xd3\x11", b"fmt \xf3\xac\xd3\x11"
ASF_FILE, ASF_WMA = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), b"\x61\x01\x01\x00"
# file, what to look for in it, where from there the number is, how it is written
Field = tuple[str, bytes, int, str]
LENGTHS: list[tuple[str, bytes, int, str, float, str]] = [
    ("wav", b"data", 4, "<I", 3 * 2**30, "truncated"),
    ("float", b"fact", 8, "<I", 2**32 - 1, "ok"),  # it counts for nothing in PCM
    ("rf64", b"ds64", 8, "<Q", 2**41, "truncated"),
    ("rf64", b"ds64", 24, "<Q", 2**40, "ok"),  # the size of the data counts
    ("w64", b"riff", 16, "<Q", 2**41, "truncated"),
    ("w64", W64_DATA, 16, "<Q", 2**41, "truncated"),
    ("aiff", b"COMM", 10, ">I", 2**32 - 1, "ok"),  # the file's own size counts
    ("caf", b"data", 4, ">Q", 2**41, "truncated"),
    ("au", b".snd", 8, ">I", 0x70000000, "truncated"),
    ("mp3", b"Xing", 8, ">I", 2**32 - 1, "ok"),  # the frames are counted
    ("m4a", b"mdhd", 20, ">I", 2**32 - 2, "ok"),  # the table of packets counts
    ("m4a", b"stts", 12, ">I", 2**32 - 1, "ok"),
    ("m4a", b"stsz", 12, ">I", 2**32 - 1, "unreadable"),
    ("m4a", b"stsz", 12, ">I", 2**28, "unreadable"),
    ("webm", b"\x44\x89\x88", 3, ">d", 2.0**40, "truncated"),
    ("wma", ASF_FILE, 64, "<Q", 2**62, "truncated"),
]
RATES: list[Field] = [
    ("wav", b"fmt ", 12, "<I"),
    ("rf64", b"fmt ", 12, "<I"),
    ("w64", W64_FORMAT, 28, "<I"),
    ("caf", b"desc", 12, ">d"),
    ("au", b".snd", 16, ">I"),
    ("m4a", b"mdhd", 16, ">I"),
    ("webm", b"\xb5\x88", 2, ">d"),
    ("wma", ASF_WMA, 4, "<I"),
]
CHANNELS: list[Field] = [
    ("wav", b"fmt ", 10, "<H"),
    ("rf64", b"fmt ", 10, "<H"),
    ("w64", W64_FORMAT, 26, "<H"),
    ("aiff", b"COMM", 8, ">H"),
    ("caf", b"desc", 36, ">I"),
    ("au", b".snd", 20, ">I"),
    ("mov", b"sowt", 20, ">H"),
    ("wma", ASF_WMA, 2, "<H"),
]


@dataclass(frozen=True)
class Result:
    """What became of a file."""

    statuses: tuple[str, ...]
    reason: str
    finite: bool
    seconds: float
    growth_mb: float


@cache
def _tagger() -> SATTagger:
    torch.set_num_threads(1)
    return SATTagger(model_by_rule(SMALL), "gapless", torch.device("cpu"))


def tagged(path: str) -> Result:
    """Take a file through all that a worker does to it."""
    begun, peak_kb = perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = Source("a", path, Path(path).stat().st_size, 0)
    [info] = probe_batch([source])
    tables: list[pa.Table] = []
    if isinstance(info, Unusable):
        statuses, reason = [info.status], info.reason
    else:
        [recording] = recordings_of(source, info, "mix")
        spans = spans_of(recording, SMALL, "gapless", SPAN_S)
        outcomes, _ = tag_task([*spans[: MOST_SPANS - 1], *spans[MOST_SPANS - 1 :][-1:]], _tagger(), tables.append)
        statuses, reason = [outcome.status for outcome in outcomes], outcomes[-1].reason
    finite = all(np.isfinite(np.array(table["scores"].to_pylist())).all() for table in tables)
    growth_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb) / 1024
    return Result(tuple(statuses), reason, finite, perf_counter() - begun, growth_mb)


class Worker:
    """A process that may die of a file; in a run, a Ray worker is as far from everything else."""

    def __init__(self, healthy: Path) -> None:
        self._healthy = healthy
        self._pool: ProcessPoolExecutor | None = None

    def tag(self, path: Path) -> Result | None:
        """Return what became of a file; None when the process died of it.

        Raises:
            TimeoutError: It did not end.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"))
            self._pool.submit(tagged, str(self._healthy)).result()  # once, all the rest is loaded
        try:
            return self._pool.submit(tagged, str(path)).result(timeout=2 * SECONDS)
        except BrokenProcessPool:
            self._pool = None
            return None
        except TimeoutError:
            for process in self._pool._processes.values():  # nothing public ends one that hangs
                process.kill()
            self._pool = None
            raise

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each format."""
    folder, sound = tmp_path_factory.mktemp("healthy"), noise(FRAMES)
    made = {}
    for name, (container, subtype) in FILES.items():
        made[name] = write(folder / name, sound, format=container, subtype=subtype)
    for name, (container, codec) in CONTAINERS.items():
        made[name] = encode(folder / name, sound, RATE_HZ, container, codec)
    return made


@pytest.fixture(scope="module")
def worker(healthy: dict[str, Path]) -> Iterator[Worker]:
    made = Worker(healthy["wav"])
    yield made
    made.close()


def assert_ends_well(result: Result | None) -> Result:
    assert result is not None
    assert set(result.statuses) <= STATUSES.keys()
    assert all(result.reason for status in result.statuses[-1:] if status != "ok")
    assert result.finite
    assert result.seconds < SECONDS
    assert result.growth_mb < GROWTH_MB
    return result


@dataclass(frozen=True)
class Edit:
    """One damage: `at` of the file (or of its header), so many bytes go, others come."""

    at: float
    in_header: bool
    removed: int
    added: bytes

    def of(self, content: bytes) -> bytes:
        at = int(self.at * (min(HEADER_BYTES, len(content)) if self.in_header else len(content)))
        return content[:at] + self.added + content[at + self.removed :]


def replacements(added: bytes) -> st.SearchStrategy[Edit]:
    return st.builds(Edit, st.floats(0, 1), st.booleans(), st.just(len(added)), st.just(added))


EDITS = st.one_of(
    st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EXTREMES)).flatmap(replacements),
    st.builds(Edit, st.floats(0, 1), st.booleans(), st.just(0), st.binary(min_size=1, max_size=100)),
    st.builds(Edit, st.floats(0, 1), st.booleans(), st.sampled_from([1, 2, 4, 100, 2**40]), st.just(b"")),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*FILES, *CONTAINERS]), edits=st.lists(EDITS, min_size=1, max_size=6))
def test_a_damaged_file_ends_with_a_status(
    healthy: dict[str, Path], worker: Worker, tmp_path: Path, name: str, edits: list[Edit]
) -> None:
    content = healthy[name].read_bytes()
    for edit in edits:
        content = edit.of(content)
    path = tmp_path / "damaged"
    path.write_bytes(content)
    result = worker.tag(path)
    if result is None:
        event(f"the decoder of {name} died")  # a run survives that: its row says `worker died`
    else:
        event(f"{result.statuses[-1]}")
        assert_ends_well(result)


def lie(content: bytes, after: bytes, offset: int, layout: str, value: float) -> bytes:
    """Put another number into a header, `offset` from where `after` begins."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, content.index(after) + offset, value)
    return bytes(changed)


@pytest.mark.parametrize(("name", "after", "offset", "layout", "value", "status"), LENGTHS)
def test_a_length_that_the_file_cannot_hold_is_not_believed(
    healthy: dict[str, Path],
    worker: Worker,
    tmp_path: Path,
    name: str,
    after: bytes,
    offset: int,
    layout: str,
    value: float,
    status: str,
) -> None:
    path = tmp_path / "lie"
    path.write_bytes(lie(healthy[name].read_bytes(), after, offset, layout, value))
    result = assert_ends_well(worker.tag(path))
    assert result.statuses == (status,)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_page_that_claims_years_is_not_believed(worker: Worker, tmp_path: Path, subtype: str) -> None:
    path = write(tmp_path / "lie", noise(FRAMES), format="OGG", subtype=subtype)
    content = bytearray(path.read_bytes())
    page = content.rindex(b"OggS")
    struct.pack_into("<q", content, page + 6, 2**40)
    struct.pack_into("<I", content, page + 22, 0)
    struct.pack_into("<I", content, page + 22, ogg_checksum(content[page:]))
    path.write_bytes(content)
    result = assert_ends_well(worker.tag(path))
    assert result.statuses == ("ok",)


def ogg_checksum(page: bytes) -> int:
    """CRC-32 as Ogg counts it: not reflected, from 0."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x104C11DB7 if checksum & 2**31 else 0)) & 0xFFFFFFFF
    return checksum


@pytest.mark.parametrize("claimed", [2**35, 2**36 - 1])
def test_a_flac_header_that_claims_weeks_is_tagged_to_its_end(
    healthy: dict[str, Path], worker: Worker, tmp_path: Path, claimed: int
) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(healthy["flac"].read_bytes())
    result = assert_ends_well(worker.tag(claim_flac_frames(path, claimed)))
    assert result.statuses == ("truncated",)


@pytest.mark.parametrize("value", [0, 1, 99, 100, 10_000_000, 2**31 - 1, 2**32 - 1])
@pytest.mark.parametrize(("name", "after", "offset", "layout"), RATES)
def test_any_rate_ends_with_a_status(
    healthy: dict[str, Path],
    worker: Worker,
    tmp_path: Path,
    name: str,
    after: bytes,
    offset: int,
    layout: str,
    value: int,
) -> None:
    path = tmp_path / "lie"
    path.write_bytes(lie(healthy[name].read_bytes(), after, offset, layout, value))
    result = assert_ends_well(worker.tag(path))
    if name in FILES:
        assert (result.statuses[-1] == "unreadable") == (value not in (100, 10_000_000))


@pytest.mark.parametrize("value", [0, 3, 255, 1024, 1025, 2**15])
@pytest.mark.parametrize(("name", "after", "offset", "layout"), CHANNELS)
def test_any_number_of_channels_ends_with_a_status(
    healthy: dict[str, Path],
    worker: Worker,
    tmp_path: Path,
    name: str,
    after: bytes,
    offset: int,
    layout: str,
    value: int,
) -> None:
    path = tmp_path / "lie"
    path.write_bytes(lie(healthy[name].read_bytes(), after, offset, layout, value))
    assert_ends_well(worker.tag(path))


def test_a_thousand_channels_are_read(worker: Worker, tmp_path: Path) -> None:
    result = assert_ends_well(worker.tag(write(tmp_path / "a.wav", noise(4000, 1024))))
    assert result.statuses == ("ok",)


@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
@pytest.mark.parametrize(
    "name",
    [b"a\nb", b" a  b ", b"a\tb\r", b"%d%s%n", b"'\"$(x);#", "\N{DOG FACE}\N{BIRD}".encode(), b"file:a", b"http:a",
     b"concat:a|b", b"\xff\xfe", b"-", b"x" * 251],
    ids=repr,
)  # fmt: skip
def test_a_file_may_have_any_name(
    healthy: dict[str, Path], worker: Worker, tmp_path: Path, name: bytes, suffix: str
) -> None:
    path = tmp_path / os.fsdecode(name + suffix.encode())
    path.write_bytes(healthy[suffix[1:]].read_bytes())
    result = worker.tag(path)
    assert result is not None
    assert result.statuses == ("ok",)
    assert [source.path for source in Search((str(tmp_path),))] == [str(path)]
