"""Live sources: raw samples, WAV files that grow, URLs by FFmpeg, devices; what they do not give is told."""

import os
import re
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from audio import Samples, noise, write
from encoded import encode
from live_servers import AudioServer, RtspServer
from satpipe.pipeline.live.open_source import open_source
from satpipe.pipeline.live.raw_samples import ENCODINGS, Pcm
from satpipe.pipeline.live.reader_thread import SourceReader
from satpipe.pipeline.live.source import Gap, LiveSource, SourceOptions
from satpipe.pipeline.live.stdin_and_files import Pipe
from satpipe.sat.errors import AudioError, ConfigError

RATE_HZ = 16_000
SUBTYPES = {
    "u8": "PCM_U8", "s16le": "PCM_16", "s16be": "PCM_16", "s24le": "PCM_24", "s32le": "PCM_32", "f32le": "FLOAT",
    "f64le": "DOUBLE",
}  # fmt: skip


def listened(source: LiveSource) -> tuple[Samples, list[Gap]]:
    """All samples of a source, [n, channels], and its gaps."""
    blocks: list[Samples] = [np.empty((0, source.channels), np.float32)]
    gaps = []
    for block in source.blocks():
        gaps.append(block) if isinstance(block, Gap) else blocks.append(block)
    return np.concatenate(blocks), gaps


def piped(content: bytes, options: SourceOptions, piece: int = 1001) -> Samples:
    """What a source makes of bytes that come through a pipe in pieces."""
    reading, writing = os.pipe()

    def feed() -> None:
        for at in range(0, len(content), piece):
            os.write(writing, content[at : at + piece])
        os.close(writing)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as file:
        samples, gaps = listened(Pipe(options, file))
    thread.join()
    assert gaps == []
    return samples


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_raw_samples_are_what_libsndfile_makes_of_them(encoding: str, tmp_path: Path) -> None:
    endian = "BIG" if encoding.endswith("be") else "FILE"
    path = tmp_path / "samples.raw"
    kind = {"format": "RAW", "subtype": SUBTYPES[encoding], "endian": endian}
    soundfile.write(path, noise(5000, 2), RATE_HZ, **kind)
    expected, _ = soundfile.read(path, dtype="float32", samplerate=RATE_HZ, channels=2, **kind)
    content = path.read_bytes()
    np.testing.assert_array_equal(piped(content, SourceOptions(encoding, RATE_HZ, 2)), expected)
    np.testing.assert_array_equal(
        piped(content + b"\1" * (len(content) // 5000 - 1), SourceOptions(encoding, RATE_HZ, 2)), expected
    )  # a last frame that is not whole


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
def test_a_finished_wav_is_read_to_its_end_and_no_further(container: str, subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "finished.wav"
    with soundfile.SoundFile(path, "w", 44_100, 3, subtype, format=container) as file:
        file.write(noise(3001, 3))
        file.title = "a chunk of text behind the samples"
    expected, _ = soundfile.read(path, dtype="float32")
    source = open_source(str(path), SourceOptions(idle_s=0))
    assert (source.rate_hz, source.channels, source.live) == (44_100, 3, False)
    samples, _ = listened(source)
    np.testing.assert_array_equal(samples, expected)
    through_a_pipe = piped(path.read_bytes(), SourceOptions())
    if container == "RF64":  # whose header is not looked at for the length there
        through_a_pipe = through_a_pipe[: len(expected)]
    np.testing.assert_array_equal(through_a_pipe, expected)


def test_a_wav_is_followed_while_it_grows_whatever_size_its_header_states(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav", noise(30_000), subtype="PCM_16").read_bytes()
    expected, _ = soundfile.read(tmp_path / "whole.wav", dtype="float32")
    header = len(whole) - 60_000

    def follow_growing(size: int) -> Samples:
        path, content = tmp_path / f"{size}.wav", bytearray(whole)
        content[4:8] = struct.pack("<I", min(size + 36, 2**32 - 1))
        content[header - 4 : header] = struct.pack("<I", size)

        def grow() -> None:
            with path.open("ab", buffering=0) as file:
                for at in [20, header, *range(header + 7_001, len(content), 7_001), len(content)]:
                    time.sleep(0.05)
                    file.write(content[path.stat().st_size : at])

        path.touch()
        writer = threading.Thread(target=grow)
        writer.start()
        samples, _ = listened(open_source(str(path), SourceOptions(idle_s=1)))
        writer.join()
        return samples

    with ThreadPoolExecutor() as pool:  # all at once: each ends with a second without growth
        for samples in pool.map(follow_growing, [0, 100, 0xFFFFFFFF]):
            np.testing.assert_array_equal(samples[:, 0], expected)


def test_a_recorder_that_closes_its_file_leaves_no_chunk_of_text_among_the_samples(tmp_path: Path) -> None:
    path, sound = tmp_path / "recording.wav", noise(20_000)
    file = soundfile.SoundFile(path, "w", RATE_HZ, 1, "FLOAT")
    file.write(sound[:9_000])
    file.flush()
    heard: list[Samples] = []
    source = open_source(str(path), SourceOptions(idle_s=1))
    reader = threading.Thread(target=lambda: heard.append(listened(source)[0][:, 0]))
    reader.start()
    time.sleep(0.2)
    file.write(sound[9_000:])
    file.close()
    reader.join()
    np.testing.assert_array_equal(heard[0], sound)


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.wav", noise(5_000))
    blocks = open_source(str(path), SourceOptions(idle_s=5)).blocks()
    next(blocks)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AudioError, match="shorter"):
        next(blocks)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("nowhere.wav", None, ConfigError, "nowhere.wav: No such file"),
        ("empty.wav", b"", AudioError, "empty.wav: not a WAV file"),
        ("text.wav", b"no audio at all", AudioError, "not a WAV file; for raw samples, set --format"),
        ("half.wav", b"RIFF\0\0\0\0WAVEfmt ", AudioError, "ends before its samples"),
        ("mp3.wav", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 85, 1, 8000, 0, 1, 0) + b"data\0\0\0\0",
         AudioError, "in format 85 with 0 bits"),
        ("none.wav", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16) + b"data\0\0\0\0",
         AudioError, "0 channels"),
    ],
)  # fmt: skip
def test_what_is_no_wav_is_refused(
    name: str, content: bytes | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        open_source(str(tmp_path / name), SourceOptions(idle_s=0))


def test_a_rate_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--rate-hz must be from 100 to 10,000,000, not 50"):
        open_source(str(write(tmp_path / "a.wav", noise(10))), SourceOptions("s16le", 50))


@pytest.mark.parametrize("rate_hz", [99, 10_000_001])
def test_a_rate_that_no_recording_has_is_refused_from_a_web_server_too(tmp_path: Path, rate_hz: int) -> None:
    path = write(tmp_path / "a.wav", noise(500), rate_hz)
    with (
        AudioServer([path.read_bytes()]) as server,
        pytest.raises(AudioError, match=f"a sampling rate of {rate_hz:,} Hz"),
    ):
        open_source(server.url, SourceOptions())


@pytest.mark.timeout(20)
def test_a_header_of_ten_megahertz_does_not_make_reading_slow(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(3_000_000), 10_000_000)
    reader = SourceReader(open_source(str(path), SourceOptions(idle_s=0)), threading.Condition(), 4.0)
    begun = time.monotonic()
    reader.start()
    taken = 0
    while not reader.finished:
        block = reader.take()
        taken += len(block.samples) if block else 0
    assert taken == 4800
    assert time.monotonic() - begun < 3  # some tenths of a second; with short windows, ten


def test_audio_from_a_web_server_is_what_is_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.flac", noise(100_000, 2), 44_100)
    with AudioServer([path.read_bytes()]) as server:
        source = open_source(server.url, SourceOptions(idle_s=5))
        assert (source.rate_hz, source.channels, source.live) == (44_100, 2, False)
        samples, gaps = listened(source)
    np.testing.assert_array_equal(samples, soundfile.read(path, dtype="float32")[0])
    assert gaps == []


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp3", "libmp3lame"), ("adts", "aac"), ("mpegts", "aac"), ("mpegts", "mp2"), ("webm", "libopus"),
     ("ogg", "libopus"), ("flv", "aac")],
)  # fmt: skip
def test_what_a_station_may_send_has_no_gap_where_there_is_none(container: str, codec: str, tmp_path: Path) -> None:
    rate_hz = 44_100 if container == "flv" else 48_000
    content = encode(tmp_path / "sound", noise(4 * rate_hz, 2), rate_hz, container, codec).read_bytes()
    with AudioServer([content]) as server:
        samples, gaps = listened(open_source(server.url, SourceOptions(idle_s=5)))
    assert gaps == []
    assert len(samples) == pytest.approx(4 * rate_hz, abs=0.1 * rate_hz)


def test_a_download_that_breaks_off_is_an_error_after_what_came(tmp_path: Path) -> None:
    content = write(tmp_path / "sound.wav", noise(16_000), subtype="PCM_16").read_bytes()
    heard: list[Samples | Gap] = []
    with AudioServer([content[:20_000]], missing=len(content) - 20_000) as server:
        blocks = open_source(server.url, SourceOptions(idle_s=5)).blocks()
        with pytest.raises(AudioError, match="Input/output error"):
            heard.extend(blocks)  # what came before the error is kept
    assert 9_000 < sum(len(block) for block in heard if not isinstance(block, Gap)) <= 10_000


def test_a_live_url_that_is_lost_is_found_again_and_the_time_between_is_a_gap(tmp_path: Path) -> None:
    content = write(tmp_path / "sound.wav", noise(16_000), subtype="PCM_16").read_bytes()
    with AudioServer([content, None, content]) as server:  # refused once in between
        source = open_source(server.url, SourceOptions(live=True, idle_s=5, reconnect_s=1.5))
        begun = time.monotonic()
        blocks = source.blocks()
        first = []
        for block in blocks:
            if isinstance(block, Gap):
                break
            first.append(block)
        took_s = time.monotonic() - begun
        rest = sum(len(block) for block in blocks if not isinstance(block, Gap))
    assert sum(map(len, first)) == rest == 16_000
    assert isinstance(block, Gap)
    assert 0.4 < block.frames / RATE_HZ <= took_s
    assert "the connection was lost" in block.reason


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/none", "rtsp://127.0.0.1:9/none"])
def test_a_url_that_cannot_be_reached_is_an_error(where: str) -> None:
    with pytest.raises(AudioError, match="127.0.0.1:9/none: Connection refused"):
        open_source(where, SourceOptions())


def test_a_web_page_is_no_audio() -> None:
    with AudioServer([b"<html>no audio</html>"]) as server, pytest.raises(AudioError, match="Invalid data"):
        open_source(server.url, SourceOptions())


def test_rtsp_packets_that_are_lost_are_a_gap_of_their_length() -> None:
    sound = np.round(noise(RATE_HZ) * 2**15) / 2**15
    lost = slice(8_000, 11_200)
    with RtspServer(sound, RATE_HZ, lost) as server:
        source = open_source(server.url, SourceOptions(idle_s=2, reconnect_s=0))
        assert (source.rate_hz, source.channels, source.live) == (RATE_HZ, 1, True)
        samples, gaps = listened(source)
    assert [gap.frames for gap in gaps] == [3_200]
    assert "packets were lost" in gaps[0].reason
    np.testing.assert_array_equal(samples[:, 0], np.delete(sound, lost).astype(np.float32))


class FakePortAudio:
    """The sounddevice module with one microphone, which gives what a test has for it."""

    class PortAudioError(Exception):
        pass

    def __init__(self, blocks: list[tuple[Samples, float, bool]]) -> None:
        self.blocks, self.asked = blocks, {}

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        microphone = {"name": "Microphone", "max_input_channels": 2, "default_samplerate": 48_000.0}
        if kind is None:
            return [microphone, {"name": "Loudspeaker", "max_input_channels": 0, "default_samplerate": 48_000.0}]
        if device not in (None, 0, "Mic"):
            raise ValueError(f"No input device matching {device!r}")
        return microphone

    def InputStream(self, **asked: Any) -> "FakePortAudio":  # noqa: N802
        self.asked = asked
        return self

    def __enter__(self) -> None:
        threading.Thread(target=self._play).start()

    def __exit__(self, *_: object) -> None:
        pass

    def _play(self) -> None:
        for samples, begun_s, overflow in self.blocks:
            times, status = SimpleNamespace(inputBufferAdcTime=begun_s), SimpleNamespace(input_overflow=overflow)
            self.asked["callback"](samples, len(samples), times, status)
        self.asked["finished_callback"]()


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    sound = noise(4_800, 2)
    # 0.1 s each; before the third one 0.25 s are lost.
    fake = FakePortAudio([(sound, 5.0, False), (sound + 0.1, 5.1, False), (sound, 5.45, True)])
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_a_device_gives_what_it_hears_and_says_what_it_lost(microphone: FakePortAudio) -> None:
    source = open_source("device:Mic", SourceOptions(channels=2))
    assert (source.rate_hz, source.channels, source.live) == (48_000, 2, True)
    blocks = source.blocks()
    heard = [next(blocks) for _ in range(4)]
    np.testing.assert_array_equal(heard[1], microphone.blocks[1][0])
    assert heard[2] == Gap(12_000, "the device lost samples: overflow")
    np.testing.assert_array_equal(heard[3], microphone.blocks[2][0])
    with pytest.raises(AudioError, match="device:Mic: the device has stopped delivering audio"):
        next(blocks)
    assert microphone.asked["device"] == "Mic"


def test_a_device_is_chosen_by_number_and_rate(microphone: FakePortAudio) -> None:
    source = open_source("device:0", SourceOptions(rate_hz=RATE_HZ))
    next(iter(source.blocks()))
    assert (microphone.asked["device"], microphone.asked["samplerate"], microphone.asked["channels"]) == (0, RATE_HZ, 1)
    assert open_source("device:", SourceOptions()).rate_hz == 48_000


@pytest.mark.usefixtures("microphone")
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'device:Microphone'"):
        open_source("device:Nothing", SourceOptions())


@pytest.mark.parametrize(
    ("module", "name", "line"),
    [
        ("sounddevice", "device:", "pip install '.[device]'"),
        ("satpipe.pipeline.live.url", "rtsp://127.0.0.1/", "pip install '.[ffmpeg]'"),
    ],
)
def test_an_extra_that_is_missing_is_told_with_the_line_that_installs_it(
    module: str, name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=re.escape(line)):
        open_source(name, SourceOptions())


def test_full_scale_is_one() -> None:
    assert Pcm("s24le", RATE_HZ, 1).decode(b"\xff\xff\x7f\0\0\x80").ravel().tolist() == [1 - 2**-23, -1.0]
