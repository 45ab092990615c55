"""Each format that the documentation names, with a real file: all its samples, at every rate, of every channel."""

import os
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from audio import Samples, noise, probed, read, shorten, write
from encoded import encode
from satpipe.pipeline.recordings import decode
from satpipe.pipeline.recordings.decode import Reader
from satpipe.pipeline.recordings.resample import resampled
from satpipe.sat.errors import AudioError

RATES_HZ = [8000, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]
SECONDS = 1
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


class Lossless(NamedTuple):
    """A format of libsndfile, and the finest step that it keeps."""

    container: str
    subtype: str
    step: float
    most_channels: int = 16


class Lossy(NamedTuple):
    """A format that keeps the sound, not the samples."""

    container: str
    subtype: str
    rates_hz: list[int]
    most_channels: int


class Contained(NamedTuple):
    """A format of FFmpeg.

    `off` samples more or fewer than were encoded: padding to whole packets, of which not all containers tell.
    """

    suffix: str
    container: str
    codec: str
    rates_hz: list[int]
    most_channels: int
    off: int
    video: str = ""


LOSSLESS = [
    Lossless("WAV", "PCM_U8", 2**-7),
    Lossless("WAV", "PCM_16", 2**-15),
    Lossless("WAV", "PCM_24", 2**-23),
    Lossless("WAV", "PCM_32", 2**-23),
    Lossless("WAV", "FLOAT", 2**-23),
    Lossless("WAV", "DOUBLE", 2**-23),
    Lossless("WAVEX", "PCM_24", 2**-23),
    Lossless("RF64", "PCM_16", 2**-15),
    Lossless("RF64", "FLOAT", 2**-23),
    Lossless("W64", "PCM_16", 2**-15),
    Lossless("W64", "PCM_24", 2**-23),
    Lossless("FLAC", "PCM_S8", 2**-7, 8),
    Lossless("FLAC", "PCM_16", 2**-15, 8),
    Lossless("FLAC", "PCM_24", 2**-23, 8),
    Lossless("AIFF", "PCM_S8", 2**-7),
    Lossless("AIFF", "PCM_16", 2**-15),
    Lossless("AIFF", "PCM_24", 2**-23),
    Lossless("AIFF", "FLOAT", 2**-23),
    Lossless("CAF", "PCM_16", 2**-15),
    Lossless("CAF", "DOUBLE", 2**-23),
    Lossless("CAF", "ALAC_16", 2**-15, 8),
    Lossless("AU", "PCM_16", 2**-15),
    Lossless("AU", "FLOAT", 2**-23),
]
LOSSY = [
    Lossy("MP3", "MPEG_LAYER_III", [8000, 16_000, 22_050, 44_100, 48_000], 2),
    Lossy("OGG", "VORBIS", RATES_HZ, 16),
    Lossy("OGG", "OPUS", [8000, 16_000, 48_000], 8),
]
CONTAINED = [
    Contained(".m4a", "ipod", "aac", RATES_HZ[:-1], 6, 1024),
    Contained(".m4a", "ipod", "alac", RATES_HZ, 2, 0),
    Contained(".mp4", "mp4", "aac", [44_100, 48_000], 2, 1024, "mpeg4"),
    Contained(".mov", "mov", "pcm_s24le", RATES_HZ, 16, 0),
    Contained(".wma", "asf", "wmav2", [8000, 22_050, 44_100, 48_000], 2, 2048),
    Contained(".webm", "webm", "libopus", [48_000], 8, 48),
    Contained(".webm", "webm", "libopus", [48_000], 2, 48, "libvpx"),
    Contained(".mkv", "matroska", "flac", RATES_HZ, 8, 0, "mpeg4"),
    Contained(".aac", "adts", "aac", [16_000, 44_100], 2, 2048),
    Contained(".ac3", "ac3", "ac3", [48_000], 6, 1536),
    Contained(".amr", "amr", "libopencore_amrnb", [8000], 1, 160),
    Contained(".wv", "wv", "wavpack", RATES_HZ, 16, 0),
]


def channels_at(rates_hz: list[int], rate_hz: int, most: int) -> set[int]:
    """Numbers of channels to test at a rate: all of interest at the lowest one, one or two at the others."""
    return {1, min(2, most), most} if rate_hz == min(rates_hz) else {1 + (most > 1) * rates_hz.index(rate_hz) % 2}


def name(kind: Lossless | Lossy | Contained) -> str:
    return "-".join(str(part) for part in kind[:3] if isinstance(part, str))


def chirp(rate_hz: int, channels: int = 1) -> Samples:
    """A sound whose pitch rises, another one in each channel, [n, channels]."""
    time_s = np.arange(SECONDS * rate_hz) / rate_hz
    slopes = 40 + 30 * np.arange(channels)
    return (0.5 * np.sin(2 * np.pi * (300 + np.outer(time_s, slopes)) * time_s[:, None])).astype(np.float32)


def assert_same_sound(ours: Samples, original: Samples, most_late: int = 1) -> None:
    """The same but for what a codec takes away, and for what some put in front, or lose there."""
    size = 2 ** (len(ours) + len(original)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(ours, size) * np.conj(np.fft.rfft(original, size)))
    late = int(np.argmax(correlation))
    assert min(late, size - late) <= most_late
    assert correlation[late] / np.sqrt((ours**2).sum() * (original**2).sum()) > 0.9


@pytest.mark.parametrize("kind", LOSSLESS, ids=name)
def test_a_lossless_format_gives_the_samples_that_were_written(tmp_path: Path, kind: Lossless) -> None:
    for channels in (1, 2, 3, kind.most_channels):
        sound = np.round(noise(20_000, channels) / kind.step) * np.float32(kind.step)
        path = write(tmp_path / "a", sound.astype(np.float64), format=kind.container, subtype=kind.subtype)
        info = probed(path)
        assert (info.frames, info.rate_hz, info.channels, info.problem) == (20_000, 16_000, channels, "")
        for channel in {1, channels}:
            ours, reader = read(path, channel)
            np.testing.assert_array_equal(ours, sound.reshape(20_000, channels)[:, channel - 1])
            assert (reader.frames_read, reader.invalid_s, reader.broken_s) == (20_000, None, None)


@pytest.mark.parametrize(
    ("kind", "rate_hz"),
    [
        pytest.param(kind, rate_hz, id=f"{name(kind)}-{rate_hz}")
        for kind in [*LOSSLESS[1::3], *LOSSY]
        for rate_hz in RATES_HZ
        if isinstance(kind, Lossless) or rate_hz in kind.rates_hz
    ],
)
def test_the_sound_is_the_same_at_every_rate_and_in_every_channel(
    tmp_path: Path, kind: Lossless | Lossy, rate_hz: int
) -> None:
    rates_hz = kind.rates_hz if isinstance(kind, Lossy) else RATES_HZ
    for channels in channels_at(rates_hz, rate_hz, kind.most_channels):
        sound = chirp(rate_hz, channels)
        path = write(tmp_path / "a", sound, rate_hz, format=kind.container, subtype=kind.subtype)
        channel = min(2, channels)  # the last of 8 may hold nothing but bass
        ours, _ = read(path, channel)
        assert len(ours) == resampled(len(sound), rate_hz)
        assert_same_sound(ours, read(write(tmp_path / "b.wav", sound[:, channel - 1], rate_hz))[0])


@pytest.mark.parametrize("kind", CONTAINED, ids=name)
def test_a_container_gives_the_sound_that_was_encoded(tmp_path: Path, kind: Contained) -> None:
    for rate_hz in kind.rates_hz:
        for channels in channels_at(kind.rates_hz, rate_hz, kind.most_channels):
            sound = chirp(rate_hz, channels)
            path = encode(tmp_path / f"a{kind.suffix}", sound, rate_hz, kind.container, kind.codec, kind.video)
            info = probed(path)
            assert (info.rate_hz, info.channels, info.exact_seek, info.problem) == (rate_hz, channels, False, "")
            assert info.frames == 0 or abs(info.frames - len(sound)) < 0.1 * rate_hz
            ours, reader = read(path, 1)
            assert abs(reader.frames_read - len(sound)) <= kind.off
            assert (reader.invalid_s, reader.broken_s) == (None, None)
            assert len(ours) == resampled(reader.frames_read, rate_hz)
            original, _ = read(write(tmp_path / "b.wav", sound[:, 0], rate_hz))
            assert_same_sound(ours, original, most_late=resampled(2048, rate_hz) if kind.off else 1)
            if not kind.off and kind.codec in ("alac", "flac", "pcm_s24le"):
                np.testing.assert_allclose(ours, original, atol=2**-14)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_a_container_may_hold_samples_of_any_kind(tmp_path: Path, codec: str) -> None:
    sound = np.round(noise(20_000, 2) * 100) / np.float32(128)
    ours, _ = read(encode(tmp_path / "a.mov", sound, 16_000, "mov", codec), 2)
    np.testing.assert_array_equal(ours, sound[:, 1])


@pytest.mark.parametrize(("suffix", "container"), [(".m4a", "ipod"), (".mka", "matroska"), (".wv", "wv")])
def test_a_container_is_read_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, container: str
) -> None:
    codec = {"ipod": "aac", "matroska": "flac", "wv": "wavpack"}[container]
    path = encode(tmp_path / f"a{suffix}", noise(300_000, 2), 48_000, container, codec)
    whole, _ = read(path)
    monkeypatch.setattr(decode, "BLOCK_VALUES", 20_000)
    reader = Reader(str(path), probed(path))
    blocks = list(reader.blocks())
    assert len(blocks) > 5
    assert max(map(len, blocks)) < 20_000
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def giant_w64(content: bytes, data_bytes: int) -> bytes:
    """The header of a W64 file, announcing so much data."""
    begin = content.index(W64_DATA) + 24
    header = bytearray(content[:begin])
    header[16:24] = struct.pack("<Q", begin + data_bytes)
    header[begin - 8 : begin] = struct.pack("<Q", 24 + data_bytes)
    return bytes(header)


def giant_rf64(content: bytes, data_bytes: int) -> bytes:
    begin = content.index(b"data") + 8
    header = bytearray(content[:begin])
    ds64 = content.index(b"ds64")
    header[ds64 + 8 : ds64 + 32] = struct.pack("<QQQ", begin + data_bytes - 8, data_bytes, data_bytes // 2)
    return bytes(header)


@pytest.mark.parametrize("container", ["W64", "RF64"])
def test_a_recording_of_more_than_4_gb_is_read_to_its_end(tmp_path: Path, container: str) -> None:
    path, tail = tmp_path / "a", np.round(noise(80_000) * 2**15) / np.float32(2**15)
    write(path, tail, format=container, subtype="PCM_16")
    data_bytes = 5 * 2**30
    frames = data_bytes // 2
    header = {"W64": giant_w64, "RF64": giant_rf64}[container](path.read_bytes(), data_bytes)
    with open(path, "wb") as file:  # all but its ends is a hole that takes no room
        file.write(header)
        os.truncate(path, len(header) + data_bytes)
        file.seek(-2 * len(tail), os.SEEK_END)
        file.write((tail * 2**15).astype("<i2").tobytes())
    info = probed(path)
    assert (info.frames, info.exact_seek, info.problem) == (frames, True, "")
    ours, reader = read(path, start=frames - 90_000)
    np.testing.assert_array_equal(ours, np.concatenate([np.zeros(10_000, np.float32), tail]))
    assert (reader.frames_read, reader.broken_s) == (frames, None)
    os.truncate(path, data_bytes - 2**28)  # still more than 4 GB
    info = probed(path)
    assert info.frames == (data_bytes - 2**28 - len(header)) // 2
    assert "bytes more than the file has" in info.problem


@pytest.mark.parametrize(
    ("written", "called"),
    [("FLAC", "a.wav"), ("WAV", "a.mp3"), ("WAV", "a.m4a"), ("AIFF", "a.au"), ("OGG", "a.snd"), ("AU", "a.vox")],
)
def test_a_format_is_told_from_the_content_not_from_the_name(tmp_path: Path, written: str, called: str) -> None:
    sound = noise(20_000)
    ours, _ = read(write(tmp_path / called, sound, format=written))
    assert_same_sound(ours, sound)


def test_a_container_is_told_from_its_content_too(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", chirp(48_000), 48_000, "mp4", "aac")
    assert_same_sound(read(path)[0], read(write(tmp_path / "b.wav", chirp(48_000), 48_000))[0])


# libsndfile takes a text for u-law, VOX ADPCM or GSM by the name alone; FFmpeg would open what a playlist lists.
@pytest.mark.parametrize("suffix", ["flac", "wav", "au", "snd", "vox", "gsm", "raw", "mp3", "sd2", "m4a", "m3u8"])
@pytest.mark.parametrize("text", ["Dear diary,\n", "#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "ffconcat version 1.0\n"])
def test_a_text_is_no_audio_whatever_it_is_called(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text(text * 200)
    with pytest.raises(AudioError, match="Format not recognised") as caught:
        probed(path)
    assert caught.value.status == "unreadable"


@pytest.mark.timeout(20)
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="a named pipe"):
        probed(tmp_path / "a.wav")


@pytest.mark.parametrize("kind", CONTAINED, ids=name)
def test_without_the_extra_the_reason_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Contained
) -> None:
    path = encode(tmp_path / "a", chirp(kind.rates_hz[0]), kind.rates_hz[0], kind.container, kind.codec, kind.video)
    monkeypatch.delitem(sys.modules, "satpipe.pipeline.recordings.ffmpeg", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        AudioError, match=r"pip install '\.\[ffmpeg\]' in the checkout, or pip install 'satpipe-.*\.whl\[ffmpeg\]'"
    ) as caught:
        probed(path)
    assert caught.value.status == "unreadable"
    path.write_text("Dear diary")
    with pytest.raises(AudioError, match="^not audio that libsndfile reads: Format not recognised.$"):
        probed(path)
    assert len(read(write(tmp_path / "b.wav", noise(5000)))[0]) == 5000


def test_a_video_without_sound_has_no_audio_in_it(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="it has no audio") as caught:
        probed(encode(tmp_path / "a.mp4", chirp(16_000), 16_000, "mp4", video="mpeg4"))
    assert caught.value.status == "unreadable"


@pytest.mark.parametrize("kind", [kind for kind in CONTAINED if kind.container in ("asf", "webm", "matroska", "adts")])
def test_a_container_that_is_cut_off_is_read_up_to_the_break(tmp_path: Path, kind: Contained) -> None:
    rate_hz = kind.rates_hz[-1]
    sound = np.tile(chirp(rate_hz), (10, 1))
    path = encode(tmp_path / f"a{kind.suffix}", sound, rate_hz, kind.container, kind.codec)
    whole, _ = read(path)
    samples, reader = read(shorten(path, 0.6))
    assert 0.4 * len(whole) < len(samples) < 0.7 * len(whole)
    np.testing.assert_allclose(samples[:-5000], whole[: len(samples) - 5000], atol=1e-6)
    assert reader.broken_s == reader.frames_read / rate_hz


def test_an_mp4_file_that_lacks_its_end_is_unreadable(tmp_path: Path) -> None:
    path = shorten(encode(tmp_path / "a.m4a", chirp(44_100), 44_100, "ipod", "aac"), 0.6)
    with pytest.raises(AudioError, match="^not audio that FFmpeg reads: Invalid data found") as caught:
        probed(path)
    assert caught.value.status == "unreadable"


@pytest.mark.parametrize("flags", ["faststart", "empty_moov+default_base_moof+frag_keyframe"])
def test_an_mp4_file_whose_tables_come_first_is_read_up_to_the_break(tmp_path: Path, flags: str) -> None:
    sound = noise(10 * 16_000)
    path = encode(tmp_path / "a.mp4", sound, 16_000, "mp4", "aac", movflags=flags, frag_duration="1000000")
    whole, reader = read(path)
    assert abs(len(whole) - len(sound)) < 2048
    assert reader.broken_s is None
    samples, reader = read(shorten(path, 0.6))
    assert 0.5 * len(whole) < len(samples) < 0.65 * len(whole)
    np.testing.assert_allclose(samples[:-3000], whole[: len(samples) - 3000], atol=1e-6)
    assert reader.broken_s == len(samples) / 16_000


def test_packets_that_cannot_be_decoded_end_a_recording(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", noise(160_000), 16_000, "ipod", "aac")
    whole, _ = read(path)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 3000] = bytes(range(250)) * 12
    path.write_bytes(content)
    samples, reader = read(path)
    assert reader.broken_s == len(samples) / 16_000
    assert 0.3 * len(whole) < len(samples) < 0.6 * len(whole)
    np.testing.assert_allclose(samples[:-3000], whole[: len(samples) - 3000], atol=1e-6)


@pytest.mark.parametrize(("rate_hz", "channels"), [(22_050, 1), (44_100, 2)])
def test_another_rate_or_number_of_channels_ends_a_recording(tmp_path: Path, rate_hz: int, channels: int) -> None:
    first = encode(tmp_path / "a.aac", chirp(44_100), 44_100, "adts", "aac").read_bytes()
    other = encode(tmp_path / "b.aac", chirp(rate_hz, channels), rate_hz, "adts", "aac").read_bytes()
    whole, _ = read(tmp_path / "a.aac")
    (tmp_path / "c.aac").write_bytes(first + other)
    samples, reader = read(tmp_path / "c.aac")
    assert abs(len(samples) - len(whole)) < 1024
    assert reader.broken_s == reader.frames_read / 44_100


def test_a_file_that_has_other_channels_than_when_it_was_looked_at_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(5000, 2))
    reader = Reader(str(path), probed(path), channel=2)
    write(path, noise(5000))
    with pytest.raises(AudioError, match="changed"):
        list(reader.blocks())


@pytest.mark.parametrize("rate_hz", [1, 99, 10_000_001])
def test_a_rate_that_no_recording_has_is_not_believed(tmp_path: Path, rate_hz: int) -> None:
    with pytest.raises(AudioError, match=f"a sampling rate of {rate_hz:,} Hz"):
        probed(write(tmp_path / "a.wav", noise(5000), rate_hz))


def test_a_low_rate_does_not_make_for_large_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(30_000), 100)
    blocks = list(Reader(str(path), probed(path)).blocks())
    assert sum(map(len, blocks)) == 160 * 30_000
    assert max(map(len, blocks)) < 2 * decode.BLOCK_VALUES  # at times soxr gives two blocks at once


def test_this_libsndfile_has_every_format_asked_for() -> None:
    assert {kind.container for kind in [*LOSSLESS, *LOSSY]} <= soundfile.available_formats().keys()
