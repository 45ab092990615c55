"""When a recording started, by the metadata in its file: as other programs write them."""

import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from guano import GuanoFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from satpipe.pipeline.start_times.from_headers import HeaderTime, read_header_time
from upath import UPath

SILENCE = np.zeros(4801, np.float32)  # an odd number of samples, and of bytes in 8 bits
IXML = """<?xml version="1.0"?><BWFXML><IXML_VERSION>2.0</IXML_VERSION>
<SPEED><TIMESTAMP_SAMPLE_RATE>48000</TIMESTAMP_SAMPLE_RATE>
<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI>0</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI>
<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>{samples}</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO></SPEED>
<BEXT><BWF_ORIGINATION_DATE>{date}</BWF_ORIGINATION_DATE>
<BWF_ORIGINATION_TIME>{time}</BWF_ORIGINATION_TIME></BEXT></BWFXML>"""


def wav(path: Path, *chunks: tuple[bytes, bytes], **options: str) -> str:
    """A file with chunks behind the sound."""
    soundfile.write(path, SILENCE, 48_000, **({"subtype": "PCM_16"} | options))
    w64 = options.get("format") == "W64"
    with path.open("ab") as file:
        file.write(bytes(-file.tell() % 8 * w64))
        for name, content in chunks:
            if w64:
                padded = content + bytes(-len(content) % 8)
                file.write(name.lower() + bytes(12) + struct.pack("<Q", 24 + len(content)) + padded)
            else:
                file.write(name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2))
    return str(path)


def broadcast(path: Path, **metadata: str) -> str:
    """A broadcast wave as FFmpeg writes it."""
    with av.open(str(path), "w", options={"write_bext": "1"}) as file:
        file.metadata.update(metadata)
        stream = file.add_stream("pcm_s16le", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        frame.rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return str(path)


def tagged_flac(path: Path, **tags: str) -> str:
    """A FLAC file with tags as FFmpeg writes them."""
    with av.open(str(path), "w") as file:
        file.metadata.update(tags)
        stream = file.add_stream("flac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return str(path)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8"])
def test_guano_as_its_own_library_writes_it(tmp_path: Path, subtype: str) -> None:
    path = wav(tmp_path / "a.wav", subtype=subtype)
    assert read_header_time(path) is None
    zone = timezone(timedelta(hours=2))
    for time in (datetime(2025, 5, 10, 5, 20, 0, 250_000, zone), datetime(2025, 5, 10, 5, 20)):
        file = GuanoFile(path)
        file["GUANO|Version"], file["Timestamp"], file["Make"] = 1.0, time, "Zoöm"
        file.write(make_backup=False)
        assert read_header_time(path) == ("guano", time.isoformat())


@pytest.mark.parametrize(
    ("comment", "time"),
    [
        ("03:20:00 10/05/2025 (UTC)", "2025-05-10T03:20:00+00:00"),
        ("05:20:00 10/05/2025 (UTC+2)", "2025-05-10T05:20:00+02:00"),
        ("05:20:00.500 10/05/2025 (UTC-9:30)", "2025-05-10T05:20:00.500000-09:30"),
        ("05:20:00 10/05/2025", "2025-05-10T05:20:00+00:00"),  # the first firmware names no zone: it is UTC
        ("05:20:00 10/05/2025 (CET)", None),
        ("25:20:00 10/05/2025 (UTC)", None),
    ],
)
def test_the_comment_of_an_audiomoth(tmp_path: Path, comment: str, time: str | None) -> None:
    text = f"Recorded at {comment} by AudioMoth 24E144085F256D6B at medium gain while battery was 4.1V."
    info = b"INFOICMT" + struct.pack("<I", len(text)) + text.encode()
    expected = HeaderTime("comment", time) if time else None
    assert read_header_time(wav(tmp_path / "a.wav", (b"LIST", b"adtl"), (b"LIST", info))) == expected
    assert read_header_time(tagged_flac(tmp_path / "a.flac", comment=text)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "Timestamp:2025-05-10T05:20:00-04:00\0\0\0",
        "Timestamp: 2025-05-10 05:20:00 -04:00",
        "Loc Position: 38.1 -122.5\nTimestamp : 2025-05-10T05:20:00.000 -0400\r\nTE: 1",
        "Timestamp: 2025-05-10 09:20:00 Z",
    ],
)
def test_guano_padded_or_with_a_space_before_the_zone(tmp_path: Path, line: str) -> None:
    found = read_header_time(wav(tmp_path / "a.wav", (b"guan", f"GUANO|Version:1.0\n{line}\n".encode())))
    assert found
    assert datetime.fromisoformat(found.time) == datetime.fromisoformat("2025-05-10T05:20:00-04:00")


@pytest.mark.parametrize("padding_bytes", [0, 3_000_000])
def test_a_flac_file_keeps_the_chunks_of_its_wav_file(tmp_path: Path, padding_bytes: int) -> None:
    """As `flac --keep-foreign-metadata` writes them: a block for each chunk, none with the sound."""
    guano = b"GUANO|Version:1.0\nTimestamp: 2025-05-10T05:20:00Z\n"
    chunks = [b"RIFF\0\0\0\0", b"WAVE", b"guan" + struct.pack("<I", len(guano)) + guano, b"data\0\0\0\0"]
    blocks = [(1, bytes(padding_bytes)), *((2, b"riff" + chunk) for chunk in chunks)]
    soundfile.write(tmp_path / "a.flac", SILENCE, 48_000)
    plain = (tmp_path / "a.flac").read_bytes()
    added = b"".join(bytes([kind]) + len(content).to_bytes(3, "big") + content for kind, content in blocks)
    (tmp_path / "a.flac").write_bytes(plain[:42] + added + plain[42:])  # behind STREAMINFO
    assert len(soundfile.read(tmp_path / "a.flac")[0]) == len(SILENCE)
    assert read_header_time(str(tmp_path / "a.flac")) == ("guano", "2025-05-10T05:20:00+00:00")


def test_a_broadcast_wave_as_ffmpeg_writes_it(tmp_path: Path) -> None:
    told = {"origination_date": "2025-05-10", "origination_time": "05:20:00"}
    path = tmp_path / "a.wav"
    assert read_header_time(broadcast(path, **told)) == ("bext", "2025-05-10T05:20:00")
    to_the_sample = str((5 * 3600 + 20 * 60) * 48_000 + 12_000)
    assert read_header_time(broadcast(path, **told, time_reference=to_the_sample)) == (
        "bext",
        "2025-05-10T05:20:00.250000",
    )
    time_code = str(3600 * 48_000)  # a production that starts at 1 o'clock
    assert read_header_time(broadcast(path, **told, time_reference=time_code)) == ("bext", "2025-05-10T05:20:00")
    date_alone = {"origination_date": "2025:05:10", "time_reference": to_the_sample}
    assert read_header_time(broadcast(path, **date_alone)) == ("bext", "2025-05-10T05:20:00.250000")
    assert read_header_time(broadcast(path, origination_date="0000-00-00", origination_time="05:20:00")) is None


@pytest.mark.parametrize(
    ("values", "time"),
    [
        ({"date": "2025-05-10", "time": "05:20:00", "samples": 0}, "2025-05-10T05:20:00"),
        ({"date": "2025-05-10", "time": "", "samples": 19_200 * 48_000 + 24_000}, "2025-05-10T05:20:00.500000"),
        ({"date": "", "time": "05:20:00", "samples": 0}, None),
    ],
)
def test_ixml(tmp_path: Path, values: dict[str, object], time: str | None) -> None:
    found = read_header_time(wav(tmp_path / "a.wav", (b"iXML", IXML.format(**values).encode())))
    assert found == (HeaderTime("ixml", time) if time else None)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64"])
def test_every_container_of_long_recordings(tmp_path: Path, container: str) -> None:
    guano = b"GUANO|Version:1.0\nTimestamp: 2025-05-10T05:20:00Z\n"
    path = wav(tmp_path / "a.wav", (b"junk", bytes(5)), (b"guan", guano), format=container)
    assert read_header_time(path) == ("guano", "2025-05-10T05:20:00+00:00")


def test_what_a_recorder_writes_goes_before_what_editors_change(tmp_path: Path) -> None:
    ixml = IXML.format(date="2026-01-01", time="12:00:00", samples=0).encode()
    guano = b"Timestamp: 2025-05-10 05:20:00\n"
    assert read_header_time(wav(tmp_path / "a.wav", (b"iXML", ixml), (b"guan", guano))) == (
        "guano",
        "2025-05-10T05:20:00",
    )
    bad = b"Timestamp: yesterday\n"
    assert read_header_time(wav(tmp_path / "a.wav", (b"guan", bad), (b"iXML", ixml))) == ("ixml", "2026-01-01T12:00:00")


def test_in_an_object_store(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", (b"guan", b"Timestamp: 2025-05-10T05:20:00Z\n"))
    UPath("memory://headers/a.wav").write_bytes(Path(path).read_bytes())
    assert read_header_time("memory://headers/a.wav") == read_header_time(path) is not None


def test_files_without_any(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", SILENCE, 48_000)
    for name in ("a.flac", "gone.wav"):
        assert read_header_time(str(tmp_path / name)) is None
    assert read_header_time("nowhere://a.wav") is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1),
    damage=st.binary(min_size=1, max_size=12),
    kept=st.floats(0, 1),
    container=st.sampled_from(["WAV", "RF64", "W64", "FLAC"]),
)
def test_whatever_is_in_a_file_nothing_is_raised(
    tmp_path: Path, place: float, damage: bytes, kept: float, container: str
) -> None:
    path = tmp_path / f"{container}.wav"
    if not path.exists():
        chunks = [(b"guan", b"Timestamp: 2025-05-10T05:20:00Z\n"), (b"bext", bytes(602)), (b"iXML", IXML.encode())]
        if container == "FLAC":
            tagged_flac(tmp_path / "a.flac", comment="Recorded at 05:20:00 10/05/2025 by AudioMoth")
            (tmp_path / "a.flac").rename(path)
        else:
            wav(path, *chunks, format=container)
    content = bytearray(path.read_bytes())
    del content[100:9500]  # most of the silence, so that more of the damage matters
    at = int(place * len(content))
    content[at : at + len(damage)] = damage
    (tmp_path / "damaged.wav").write_bytes(content[: int(kept * len(content))])
    found = read_header_time(str(tmp_path / "damaged.wav"))
    assert found is None or datetime.fromisoformat(found.time)
