"""Sizes in headers that are not true: all samples are read, and nothing else."""

import io
import pickle
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from audio import claim_flac_frames, noise, probed, read, write
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings.container import examine
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.recording import is_known_size
from satpipe.sat.errors import AudioError

RATE_HZ = 16_000
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class Kind:
    """A format: how its size is written, and a chunk that may follow the samples."""

    format: str
    name: bytes  # in front of the size
    offset: int  # of the size, from the name
    layout: str
    extra: int  # what the size counts in addition to the samples
    after: bytes  # a whole chunk
    begin: int  # of the samples, from the name
    align: int = 2
    outer: tuple[int, str] | None = None  # place of the size of the whole file
    magic: bytes = b""  # instead of the first four bytes


def chunk(layout: str, name: bytes, content: bytes) -> bytes:
    return name + struct.pack(layout, len(content)) + content + bytes(len(content) % 2)


COMMENT = chunk("<I", b"LIST", b"INFO: what follows the sound is no sound")
KINDS = [
    Kind("WAV", b"data", 4, "<I", 0, COMMENT, 8, outer=(4, "<I")),
    Kind("WAVEX", b"data", 4, "<I", 0, COMMENT + chunk("<I", b"guan", b"GUANO|Version:1.0"), 8, outer=(4, "<I")),
    Kind("RF64", b"ds64", 16, "<Q", 0, COMMENT, 0),
    Kind("RF64", b"ds64", 16, "<Q", 0, COMMENT, 0, magic=b"BW64"),
    Kind("W64", b"data" + W64_TAIL, 16, "<Q", 24, b"LIST" + W64_TAIL + struct.pack("<Q", 64) + bytes(40), 24, 8),
    Kind("AIFF", b"SSND", 4, ">I", 8, chunk(">I", b"ANNO", b"a comment"), 16, outer=(4, ">I")),
    Kind("CAF", b"data", 4, ">q", 4, b"info" + struct.pack(">q", 9) + b"a comment", 16, 1),
    Kind("AU", b".snd", 8, ">I", 0, b"", 24, 1),
]
SUBTYPES = ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    subtype=st.sampled_from(SUBTYPES),
    shape=st.tuples(st.integers(1, 400), st.integers(1, 3)),
    claim=st.one_of(
        st.sampled_from([0, 1, 44, 2**31 - 1, 2**31, 2**32 - 37, 2**32 - 1, 2**32 - 2**21]),
        st.floats(0, 3),
        st.integers(0, 2**32 - 30),
    ),
    outer=st.none() | st.integers(0, 2**32 - 1),
    followed=st.booleans(),
)
def test_whatever_size_a_header_states_all_samples_are_read_and_nothing_else(
    tmp_path: Path,
    kind: Kind,
    subtype: str,
    shape: tuple[int, int],
    claim: float,
    outer: int | None,
    followed: bool,
) -> None:
    frames, channels = shape
    path = write(tmp_path / "a", noise(8 * frames, channels), RATE_HZ, format=kind.format, subtype=subtype)
    true, _ = soundfile.read(path, dtype="float32", always_2d=True)
    content = bytearray(path.read_bytes())
    at = content.index(kind.name)
    size = struct.unpack_from(kind.layout, content, at + kind.offset)[0] - kind.extra
    begin = content.index(b"data") + 8 if kind.format == "RF64" else at + kind.begin
    del content[begin + size :]
    stated = int(claim * size) if isinstance(claim, float) else claim
    room = len(content) + len(kind.after) * followed - begin
    if stated + -stated % kind.align == size or (followed and size < stated <= room < stated + size / len(true)):
        stated = size  # nobody can know whether the rest is padding, or that the chunk is no sound
    struct.pack_into(kind.layout, content, at + kind.offset, min(stated + kind.extra, 2**32 - 1))
    if outer is not None and kind.outer:
        struct.pack_into(kind.outer[1], content, kind.outer[0], outer)
    content[: len(kind.magic)] = kind.magic
    path.write_bytes(bytes(content) + kind.after * followed)
    info = probed(path)
    samples, reader = read(path)
    np.testing.assert_allclose(samples, true.mean(axis=1), atol=1e-6)
    assert info.frames == reader.frames_read == len(true)
    assert info.exact_seek
    assert reader.broken_s is None
    known = is_known_size(stated)
    block = size // len(true)
    missing = stated - room
    event(
        f"{kind.format}, {'unknown' if not known else 'less' if stated < size else 'more' if missing > 0 else 'true'}"
    )
    if stated <= size - block or (stated >= size + block and missing <= 0):
        assert [text.partition(":")[0] for text in info.warnings] == ["size corrected"] * known
    if known and missing > 64:
        assert f"announces {missing:,} bytes more than the file has" in info.problem
    if outer is None and (missing <= 0 or not known):
        assert info.problem == ""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 60_000),
    channels=st.integers(1, 2),
    subtype=st.sampled_from(["PCM_16", "PCM_24"]),
    silent=st.booleans(),
    claim=st.one_of(st.sampled_from([0, 1, 2**36 - 1]), st.floats(0, 3), st.integers(0, 2**36 - 1)),
)
def test_whatever_length_a_flac_header_states_all_samples_are_read(
    tmp_path: Path, frames: int, channels: int, subtype: str, silent: bool, claim: float
) -> None:
    path = write(tmp_path / "a.flac", noise(frames, channels) * (not silent), RATE_HZ, subtype=subtype)
    true, _ = read(path)
    assert probed(path).layouts == ()
    stated = int(claim * frames) if isinstance(claim, float) else claim
    info = probed(claim_flac_frames(path, stated))
    samples, _ = read(path)
    np.testing.assert_array_equal(samples, true)
    assert bool(info.warnings) == (0 < stated < frames)
    if 0 <= stated <= frames:
        assert (info.frames, info.exact_seek, info.problem) == (frames, True, "")
    elif stated > frames + 2**16:
        assert (info.frames, info.exact_seek) == (frames, True)
        assert info.problem == f"the header announces {stated - frames:,} samples more than the file has"


@pytest.mark.parametrize("form", ["WAV", "AIFF", "AU"])
@pytest.mark.parametrize("followed", [True, False])
def test_a_size_that_has_wrapped_round_after_4_gb_is_corrected(tmp_path: Path, form: str, followed: bool) -> None:
    kind = next(each for each in KINDS if each.format == form)
    end = noise(5 * RATE_HZ)
    path = write(tmp_path / "a", end, RATE_HZ, format=form, subtype="PCM_16")
    expected, _ = read(path)
    content = bytearray(path.read_bytes())
    at = content.index(kind.name)
    begin, size = at + kind.begin, 2 * len(end)
    struct.pack_into(kind.layout, content, at + kind.offset, size + kind.extra)  # modulo 2^32
    with path.open("wb") as file:  # sparse: zeros, then the sound
        file.write(content[:begin])
        file.seek(begin + 2**32)
        file.write(content[begin : begin + size] + kind.after * followed)
    info = probed(path)
    assert info.frames == 2**31 + len(end)
    assert info.exact_seek
    assert [text.partition(":")[0] for text in info.warnings] == ["size corrected"]
    samples, reader = read(path, start=2**31 - 100)
    np.testing.assert_array_equal(samples, np.concatenate([np.zeros(100, np.float32), expected]))
    assert reader.broken_s is None


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, None], ids=lambda kind: kind.format if kind else "FLAC")
def test_a_corrected_file_is_read_from_anywhere(tmp_path: Path, kind: Kind | None, remote: bool) -> None:
    sound = noise(20 * 48_000, 2)
    path = write(tmp_path / "a", sound, 48_000, format=kind.format if kind else "FLAC", subtype="PCM_24")
    whole, _ = read(path)
    if kind is None:
        claim_flac_frames(path, 1000)
    else:
        content = bytearray(path.read_bytes())
        content[: len(kind.magic)] = kind.magic
        struct.pack_into(kind.layout, content, content.index(kind.name) + kind.offset, kind.extra)
        path.write_bytes(content)
    name = str(path)
    if remote:
        name = f"memory://{tmp_path}"
        fsspec.filesystem("memory").pipe(name, path.read_bytes())
    info = probe(name, path.stat().st_size)
    assert len(info.warnings) == 1
    for start in (0, 1, 100_000, 319_999):
        reader = Reader(name, pickle.loads(pickle.dumps(info)), start=start)
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks())), whole[start:])


def test_a_file_that_cannot_be_read_any_more_is_no_end_of_a_corrected_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(20 * RATE_HZ))
    content = bytearray(path.read_bytes())
    content[40:44] = bytes(4)
    path.write_bytes(content)
    info = probed(path)
    path.write_bytes(content[:100_000])
    reader = Reader(str(path), info)
    assert sum(map(len, reader.blocks())) == (100_000 - 44) // 2
    assert reader.broken_s == (100_000 - 44) // 2 / RATE_HZ


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.format != "AU"], ids=str)
def test_a_file_after_the_samples_of_another_is_said(tmp_path: Path, kind: Kind) -> None:
    path = write(tmp_path / "a", noise(RATE_HZ), RATE_HZ, format=kind.format, subtype="PCM_24")
    content = path.read_bytes()
    content = kind.magic + content[len(kind.magic) :]
    path.write_bytes(content)
    true, _ = read(path)
    path.write_bytes(2 * content)
    info = probed(path)
    samples, _ = read(path)
    np.testing.assert_array_equal(samples, true)
    assert info.problem == f"another sound follows in the file, at byte {len(content):,}: split it there"


@pytest.mark.parametrize("seconds", [(2, 2), (2, 3), (3, 2), (2, 2, 2)], ids=str)
def test_a_flac_file_after_another_is_said(tmp_path: Path, seconds: tuple[int, ...]) -> None:
    parts = [write(tmp_path / "a.flac", noise(s * RATE_HZ, seed=s)).read_bytes() for s in seconds]
    path = write(tmp_path / "a.flac", noise(seconds[0] * RATE_HZ, seed=seconds[0]))
    true, _ = read(path)
    path.write_bytes(b"".join(parts))
    problem = f"another sound follows in the file, at byte {len(parts[0]):,}: split it there"
    assert probed(path).problem == problem
    np.testing.assert_array_equal(read(path)[0], true)
    claim_flac_frames(path, 1000)
    assert probed(path).problem == problem
    np.testing.assert_array_equal(read(path)[0], true)


def test_an_odd_chunk_before_the_samples_may_lack_its_padding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE_HZ))
    true, _ = read(path)
    content = path.read_bytes()
    path.write_bytes(content[:36] + chunk("<I", b"LIST", b"INFO, odd")[:-1] + content[36:])
    assert probed(path).warnings == ()
    np.testing.assert_array_equal(read(path)[0], true)


def test_a_false_size_of_samples_that_only_their_own_header_describes_is_said(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "a.aiff", noise(RATE_HZ), format="AIFF", subtype="IMA_ADPCM").read_bytes())
    at = content.index(b"SSND") + 4
    content[at : at + 4] = struct.pack(">I", 348)
    (tmp_path / "a.aiff").write_bytes(content)
    assert re.fullmatch(r"the header states 340 bytes of .*, which cannot .*", probed(tmp_path / "a.aiff").problem)


def test_a_tag_in_front_of_flac_hides_no_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", noise(RATE_HZ))
    true, _ = read(path)
    content = claim_flac_frames(path, 1000).read_bytes()
    path.write_bytes(b"ID3\3\0\0\0\0\1\0" + bytes(128) + content)
    np.testing.assert_array_equal(read(path)[0], true)
    assert probed(path).frames == RATE_HZ


def test_chunks_before_the_samples_are_no_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(RATE_HZ))
    true, _ = read(path)
    content = path.read_bytes()
    junk = chunk("<I", b"JUNK", bytes(4045)) + chunk("<I", b"bext", bytes(602))
    path.write_bytes(content[:12] + junk + content[12:40] + bytes(4) + content[44:])
    samples, _ = read(path)
    np.testing.assert_array_equal(samples, true)


@cache
def small_files() -> list[bytes]:
    files = []
    for form in ("WAV", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC"):
        file = io.BytesIO()
        soundfile.write(file, noise(1000), RATE_HZ, format=form)
        files.append(file.getvalue())
    return files


@settings(max_examples=300, deadline=None)
@given(
    number=st.integers(0, 6),
    edits=st.lists(
        st.tuples(st.integers(4, 120), st.sampled_from([b"\xff" * 8, bytes(4), b"\x7f" * 8, b"LIST"]) | st.binary()),
        min_size=1,
        max_size=4,
    ),
    name=st.sampled_from(["/a.wav", "/20250510_032000T.WAV"]),
)
@example(number=2, edits=[(56, b"\xff" * 8)], name="/a.wav")  # a chunk of 2^64 bytes
@example(number=0, edits=[(24, bytes(4)), (44, b"\1\0" * 32 + bytes(448))], name="/20250510_032000T.WAV")  # at 0 Hz
def test_a_damaged_header_is_read_or_refused(number: int, edits: list[tuple[int, bytes]], name: str) -> None:
    content = bytearray(small_files()[number])
    for at, new in edits:
        content[at : at + len(new)] = new
    with suppress(AudioError):
        contents = examine(io.BytesIO(bytes(content)), len(content), name)
        pieces = [piece for layout in contents.layouts for piece in layout.pieces]
        assert all(piece.begin is None or piece.begin + piece.size <= len(content) for piece in pieces)
