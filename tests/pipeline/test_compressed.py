"""Compressed files whose headers are wrong, or that hold several streams: all their sound is read, and what was odd is
said."""

import re
import struct
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import without_ray
from audio import Samples, noise, probed, read, shorten, write
from encoded import encode
from satpipe.pipeline.recordings.find import Source
from satpipe.pipeline.recordings.probing import probe_batch
from satpipe.pipeline.recordings.raw_aac import WINDOW_BYTES
from satpipe.pipeline.recordings.recording import AudioInfo
from satpipe.sat.errors import AudioError
from tag_tables import recordings

RATE_HZ = 44_100
SECONDS = 3
FRAME_SAMPLES = 1152
DECODER_DELAY = 529  # samples that every decoder of MP3 adds at the start
VBR_HEADER = {16_000: 13, 44_100: 21}  # where the header begins in a mono file
KBIT_S = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]


def tune(seconds: float = SECONDS, rate_hz: int = RATE_HZ, low_hz: float = 300) -> Samples:
    """A sound whose pitch rises, with some noise: at a variable bit rate, frames differ in size."""
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    pitch = 0.5 * np.sin(2 * np.pi * (low_hz + 200 * time_s) * time_s)
    return (pitch + 0.3 * time_s / seconds * noise(len(time_s))).astype(np.float32)


def mp3(path: Path, rate_hz: int = RATE_HZ, sound: Samples | None = None) -> bytes:
    """An MP3 file of variable bit rate with a header `Xing`."""
    content = write(path, tune(rate_hz=rate_hz) if sound is None else sound, rate_hz, format="MP3").read_bytes()
    assert content[VBR_HEADER[rate_hz] :][:4] == b"Xing"
    return content


def frames(content: bytes) -> list[bytes]:
    """The frames of an MP3 file of 44.1 kHz."""
    begins = [0]
    while begins[-1] + 4 <= len(content):
        third = content[begins[-1] + 2]
        begins.append(begins[-1] + 144 * 1000 * KBIT_S[third >> 4] // RATE_HZ + (third >> 1 & 1))
    return [content[begin:end] for begin, end in pairwise(begins)]


def claiming(content: bytes, count: int, rate_hz: int = RATE_HZ) -> bytes:
    """The file with another number of frames in its header."""
    at = VBR_HEADER[rate_hz] + 8
    return content[:at] + struct.pack(">I", count) + content[at + 4 :]


def id3(size: int) -> bytes:
    """A tag with a picture of so many random bytes, among them many that look like the start of a frame."""
    picture = np.random.default_rng(0).bytes(size // 2).replace(b"\0", b"\xff\xfb")
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    return b"ID3\3\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def assert_whole(path: Path, expected: Samples, *warnings: str) -> AudioInfo:
    """The file is read to its end, gives the samples expected, and is called odd for these reasons alone."""
    info = probed(path)
    samples, reader = read(path)
    assert (info.problem, reader.broken_s, reader.problem) == ("", None, "")
    assert info.samples == len(samples)
    np.testing.assert_array_equal(samples, expected)
    assert [text.partition(": ")[0] for text in info.warnings] == list(warnings)
    return info


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.95, 1.05, 10.0, 1e6])
def test_a_false_number_of_frames_in_an_mp3_header_neither_loses_nor_adds_sound(
    tmp_path: Path, rate_hz: int, part: float
) -> None:
    content = mp3(tmp_path / "true.mp3", rate_hz)
    original, _ = read(tmp_path / "true.mp3")
    [count] = struct.unpack(">I", content[VBR_HEADER[rate_hz] + 8 :][:4])
    path = saved(tmp_path / "false.mp3", claiming(content, int(part * count), rate_hz))
    info = assert_whole(path, original, "size corrected")
    assert f"states {int(part * count):,} MPEG frames, the file has {count:,}" in info.warnings[0]


def test_a_right_header_is_believed_whatever_tags_surround_the_sound(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = mp3(tmp_path / "bare.mp3")
    original, _ = read(tmp_path / "bare.mp3")
    assert_whole(tmp_path / "bare.mp3", original)
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, 40 - 32 + 24, 1, 0) + bytes(32)
    for name, tagged in {"cover": id3(300_000) + content, "end": content + ape + b"TAG".ljust(128, b" ")}.items():
        assert_whole(saved(tmp_path / f"{name}.mp3", tagged), original)
    constant = encode(tmp_path / "constant.mp3", tune(), RATE_HZ, "mp3", "libmp3lame")
    assert b"Info" in constant.read_bytes()[:2000]
    plain, _ = read(constant)
    assert abs(len(plain) - 16_000 * SECONDS) <= 1
    assert_whole(saved(tmp_path / "covered.mp3", id3(300_000) + constant.read_bytes()), plain)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cover", [0, 300_000])
@pytest.mark.parametrize("constant", [False, True])
def test_an_mp3_file_without_header_is_read_to_its_end(tmp_path: Path, constant: bool, cover: int) -> None:
    path = tmp_path / "a.mp3"
    if constant:
        encode(path, tune(), RATE_HZ, "mp3", "libmp3lame", write_xing="0", id3v2_version="0")
        sound = frames(path.read_bytes())
        assert len({len(frame) for frame in sound}) <= 2
    else:
        sound = frames(mp3(path))[1:]
        assert len({len(frame) for frame in sound}) > 2
    info = probed(saved(path, id3(cover) + b"".join(sound) if cover else b"".join(sound)))
    assert info.frames == len(sound) * FRAME_SAMPLES - DECODER_DELAY
    samples, reader = read(path)
    assert (len(samples), reader.broken_s, info.problem, info.warnings) == (info.samples, None, "", ())


def test_a_header_vbri_counts_for_nothing(tmp_path: Path) -> None:
    first, *sound = frames(mp3(tmp_path / "a.mp3"))
    expected, _ = read(saved(tmp_path / "none.mp3", b"".join(sound)))
    for count in (len(sound), 5):
        fields = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, len(b"".join(sound)), count)
        start = bytes([0xFF, 0xFB, 0xE0, first[3]]).ljust(36, b"\0") + fields
        head = start.ljust(144 * 320_000 // RATE_HZ, b"\0")
        path = saved(tmp_path / f"{count}.mp3", head + b"".join(sound))
        samples, reader = read(path)
        np.testing.assert_allclose(samples[-len(expected) :], expected, atol=1e-6)
        assert reader.broken_s is None
        assert len(probed(path).warnings) == (count == 5)


@pytest.mark.parametrize("between", [b"", b"TAG".ljust(128, b" ") + id3(5000)], ids=["nothing", "tags"])
def test_mp3_files_that_were_joined_are_read_as_one(tmp_path: Path, between: bytes) -> None:
    sounds = [tune(3), tune(2, low_hz=900)]
    parts = [mp3(tmp_path / f"{number}.mp3", sound=sound) for number, sound in enumerate(sounds)]
    path = saved(tmp_path / "joined.mp3", parts[0] + between + parts[1])
    info = probed(path)
    samples, reader = read(path)
    assert [text.partition(": ")[0] for text in info.warnings] == ["size corrected"]
    assert (reader.broken_s, info.problem) == (None, "")
    assert 5 <= info.duration_s < 5.2  # the padding between them is sound to a decoder
    first, second = (read(tmp_path / f"{number}.mp3")[0] for number in (0, 1))
    np.testing.assert_allclose(samples[: len(first) - 1000], first[:-1000], atol=1e-6)
    late = int(np.argmax(np.correlate(samples[len(first) :], second[1000:20_000], "valid"))) + len(first) - 1000
    error = np.abs(samples[late + 1000 : late + 20_000] - second[1000:20_000])
    assert np.sqrt((error**2).mean()) < 0.2 * second.std()  # the two are resampled at other places


def test_other_bytes_between_mp3_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    sound = frames(mp3(tmp_path / "a.mp3"))[1:]
    expected, _ = read(saved(tmp_path / "clean.mp3", b"".join(sound)))
    titles = b"\2StreamTitle='\xff\xfb birds';".ljust(33, b"\0")  # as web radios send them
    for name, content, skipped in [
        ("zeros", bytes(70_000) + b"".join(sound), 70_000),
        ("titles", b"".join(b"".join(sound[at : at + 8]) + titles for at in range(0, len(sound), 8)), None),
        ("long", b"".join(sound[:40]) + bytes(range(256)) * 5000 + b"".join(sound[40:]), 1_280_000),
    ]:
        info = assert_whole(saved(tmp_path / f"{name}.mp3", content), expected, "bytes skipped")
        assert skipped is None or info.warnings[0].startswith(f"bytes skipped: {skipped:,} that are no MPEG frames")


def test_an_mp3_file_that_begins_and_ends_inside_a_frame_is_read_but_for_these(tmp_path: Path) -> None:
    sound = frames(mp3(tmp_path / "a.mp3"))[1:]
    path = saved(tmp_path / "captured.mp3", (b"".join(sound[10:]))[50:-20])
    info = probed(path)
    samples, reader = read(path)
    assert info.frames == (len(sound) - 12) * FRAME_SAMPLES - DECODER_DELAY
    assert (len(samples), reader.broken_s, info.problem) == (info.samples, None, "")
    assert info.warnings == (
        f"bytes skipped: {len(sound[10]) - 50:,} that are no MPEG frames, the first of them at byte 0",
    )


def test_sound_of_another_format_that_follows_ends_an_mp3_recording_with_a_reason(tmp_path: Path) -> None:
    first, second = mp3(tmp_path / "a.mp3"), mp3(tmp_path / "b.mp3", 16_000)
    info = probed(saved(tmp_path / "c.mp3", first + second))
    assert info.problem == "MPEG frames of another format follow (layer 3, 16,000 Hz, 1 channels)"
    np.testing.assert_allclose(read(tmp_path / "c.mp3")[0][:40_000], read(tmp_path / "a.mp3")[0][:40_000], atol=1e-6)


@pytest.mark.parametrize("cover", [0, 100_000])
def test_the_frames_of_an_mp2_file_are_counted_too(tmp_path: Path, cover: int) -> None:
    path = encode(tmp_path / "a.mp2", tune(), RATE_HZ, "mp2", "mp2")
    original, _ = read(path)
    assert abs(len(original) - 16_000 * SECONDS) <= 16_000 * FRAME_SAMPLES / RATE_HZ
    content = path.read_bytes()
    assert_whole(saved(path, id3(cover) + content) if cover else path, original)
    assert_whole(saved(path, bytes(5000) + content), original, "bytes skipped")


def test_the_decoder_of_mp3_prints_nothing_of_damaged_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(mp3(tmp_path / "a.mp3"))
    for at in range(1000, len(content), 700):
        content[at : at + 30] = bytes(range(90, 120))
    samples, _ = read(saved(tmp_path / "b.mp3", bytes(content)))
    assert len(samples) > 16_000
    assert capfd.readouterr() == ("", "")
    print("still printed", file=sys.stderr)
    assert capfd.readouterr() == ("", "still printed\n")


def ogg(path: Path, subtype: str, seconds: float = 2, low_hz: float = 300, rate_hz: int = 16_000) -> bytes:
    return write(path, tune(seconds, rate_hz, low_hz), rate_hz, format="OGG", subtype=subtype).read_bytes()


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_streams_of_a_chained_ogg_file_are_read_as_one_recording(tmp_path: Path, subtype: str) -> None:
    lengths_s = (2, 0.5, 3)
    parts = [ogg(tmp_path / str(number), subtype, s, 300 + 200 * number) for number, s in enumerate(lengths_s)]
    expected = np.concatenate([read(tmp_path / str(number))[0] for number in range(3)])
    path = saved(tmp_path / "chained.ogg", b"".join(parts))
    info = assert_whole(path, expected, "chained streams")
    assert (info.frames, info.exact_seek) == (sum(int(16_000 * s) for s in lengths_s), False)
    start = int(2.2 * 16_000)
    np.testing.assert_allclose(read(path, start=start)[0][16_000:], expected[start + 16_000 :], atol=1e-4)
    twice = np.concatenate([read(tmp_path / "0")[0]] * 2)
    assert_whole(saved(path, 2 * parts[0]), twice, "chained streams")  # with one serial number
    cut = saved(path, parts[0][:-300] + parts[2])  # the connection was lost in between
    assert_whole(
        cut, np.concatenate([read(shorten_by(tmp_path / "0", 300))[0], read(tmp_path / "2")[0]]), "chained streams"
    )


def shorten_by(path: Path, size: int) -> Path:
    return saved(path, path.read_bytes()[:-size])


def test_a_stream_of_another_rate_ends_an_ogg_recording_with_a_reason(tmp_path: Path) -> None:
    parts = [ogg(tmp_path / str(rate_hz), "VORBIS", rate_hz=rate_hz) for rate_hz in (16_000, 22_050)]
    path = saved(tmp_path / "chained.ogg", b"".join(parts))
    assert probed(path).problem == "a stream of 22,050 Hz and 1 channels follows"
    samples, reader = read(path)
    np.testing.assert_array_equal(samples, read(tmp_path / "16000")[0])
    assert reader.broken_s is None


def test_a_stream_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    first, second = ogg(tmp_path / "0", "OPUS"), ogg(tmp_path / "1", "OPUS", 3)
    expected = np.concatenate([read(tmp_path / number)[0] for number in "01"])
    broken = first.replace(b"OpusHead", b"OpusHeat")
    info = assert_whole(saved(tmp_path / "chained.ogg", first + broken + second), expected, "chained streams")
    assert re.search(
        rf"3 follow each other in the file; the one at byte {len(first):,} cannot be read", info.warnings[0]
    )


@pytest.mark.slow
def test_a_large_ogg_file_is_looked_into_and_a_chained_one_found(tmp_path: Path) -> None:
    sound = noise(12 * 48_000, 8)
    content = write(
        tmp_path / "large.ogg", sound, 48_000, format="OGG", subtype="VORBIS", compression_level=0.0
    ).read_bytes()
    assert len(content) > 2_200_000
    assert probed(tmp_path / "large.ogg").frames == len(sound)
    for length in (4_800, 48_000, len(sound)):
        other = content
        if length < len(sound):
            short = write(tmp_path / "short.ogg", sound[:length], 48_000, format="OGG", subtype="VORBIS")
            other = short.read_bytes()
        for chained in (content + other, other + content):
            assert probed(saved(tmp_path / "chained.ogg", chained)).frames == len(sound) + length


def adts_in_wav(path: Path) -> Path:
    """AAC with the headers of its frames, in WAV."""
    stream = encode(path, tune(rate_hz=48_000), 48_000, "adts", "aac").read_bytes()
    form = struct.pack("<HHIIHHH", 0x1600, 1, 48_000, 12_000, 1, 16, 0)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(stream)) + stream
    return saved(path, b"RIFF" + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize("codec", ["ac3", "adts", "aac"])
def test_where_libsndfile_does_not_know_the_codec_ffmpeg_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    path = tmp_path / "a.wav"
    adts_in_wav(path) if codec == "adts" else encode(path, tune(rate_hz=48_000), 48_000, "wav", codec)
    info = probed(path)
    samples, reader = read(path)
    assert (info.rate_hz, info.channels, info.container, info.problem) == (48_000, 1, "wav", "")
    assert abs(len(samples) - 16_000 * SECONDS) < 1000
    assert reader.broken_s is None
    samples, reader = read(shorten(path, 0.6))
    assert "bytes more than the file has" in probed(path).problem
    assert 0.5 < len(samples) / (16_000 * SECONDS) < 0.7

    monkeypatch.delitem(sys.modules, "satpipe.pipeline.recordings.ffmpeg", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        AudioError, match=r"FFmpeg may read it: for that, install the extra ffmpeg: pip install"
    ) as caught:
        probed(path)
    assert caught.value.status == "unreadable"


def test_aac_without_headers_of_frames_is_decoded_as_with_them(tmp_path: Path) -> None:
    sound = tune(12, 48_000)
    path = encode(tmp_path / "a.wav", sound, 48_000, "wav", "aac")
    content = bytearray(path.read_bytes())
    assert len(content) > 3 * WINDOW_BYTES
    samples, reader = read(path)
    expected, _ = read(encode(tmp_path / "a.aac", sound, 48_000, "adts", "aac"))
    np.testing.assert_array_equal(samples, expected)
    assert reader.broken_s is None
    half = len(content) // 2
    content[half : half + 50] = bytes(range(100, 150))
    samples, reader = read(saved(path, bytes(content)))
    assert reader.broken_s == pytest.approx(len(samples) / 16_000, abs=1e-4)
    assert 0.4 < len(samples) / len(expected) < 0.6
    np.testing.assert_allclose(samples[:-3000], expected[: len(samples) - 3000], atol=1e-6)


def test_ffmpeg_does_not_read_uncompressed_samples_behind_a_damaged_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.caf", noise(16_000))
    content = path.read_bytes()
    with pytest.raises(AudioError, match="^not audio that libsndfile reads: "):
        probed(saved(path, content[:20] + bytes(8) + content[28:]))


def test_probing_a_batch_says_what_was_corrected(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.mp3", claiming(mp3(tmp_path / "b.mp3"), 0))
    [info] = probe_batch([Source("a.mp3", str(path), path.stat().st_size, 0)])
    assert isinstance(info, AudioInfo)
    assert info.warnings[0].startswith("size corrected: the header states 0 MPEG frames")


def test_tagging_counts_what_was_corrected_and_ends_well(tmp_path: Path) -> None:
    content, stream = mp3(tmp_path / "a.mp3"), ogg(tmp_path / "a.ogg", "OPUS")
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "tenth.mp3", claiming(content, 11))
    saved(tmp_path / "in" / "chained.ogg", 3 * stream)
    saved(tmp_path / "in" / "captured.mp3", b"".join(frames(content)[5:])[77:])
    encode(tmp_path / "in" / "ac3.wav", tune(rate_hz=48_000), 48_000, "wav", "ac3")
    done = without_ray.satpipe("tag", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 bytes skipped, 1 chained streams, 1 size corrected" in done.stdout
    rows = recordings(tmp_path / "out")
    assert set(rows.status) == {"ok"}
    durations_s = {"tenth.mp3": 3, "chained.ogg": 6, "captured.mp3": 2.9, "ac3.wav": 3}
    for name, duration_s in durations_s.items():
        assert rows.duration_s[name] == pytest.approx(duration_s, abs=0.1)
        assert rows.chunks[name] == int(-(-rows.duration_s[name] // 1.92))
    assert list(rows.warnings["chained.ogg"]) == ["chained streams: 3 follow each other in the file"]
