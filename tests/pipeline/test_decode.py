"""Samples out of files: from any point on the same ones, up to the break of a broken file, and no bad ones."""

import struct
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from audio import Samples, claim_flac_frames, noise, probed, read, shorten, write
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings import decode
from satpipe.pipeline.recordings.decode import PRIMING_SAMPLES, Reader, probe
from satpipe.pipeline.recordings.recording import AudioInfo
from satpipe.pipeline.recordings.resample import resampled
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

RATES_HZ = [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]
PCM = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("CAF", "PCM_16"),
    ("AU", "PCM_16"),
    ("W64", "PCM_16"),
    ("RF64", "PCM_16"),
]
COMPRESSED = [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")]
SECONDS = 2
STARTS = [1, PRIMING_SAMPLES + 1, 12_345, 30_720]
ROUNDING = 5e-7  # four units of float32: the filter sums some hundred products, in another order; a wrong sample is 0.1
LEAST_CORRELATION = 0.9  # of a sound that went through a lossy format with itself
FLAC_BLOCK_FRAMES = 4096


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize(("container", "subtype"), PCM)
def test_reading_from_the_middle_gives_the_samples_of_reading_from_the_start(
    tmp_path: Path, container: str, subtype: str, rate_hz: int
) -> None:
    frames = SECONDS * rate_hz + 37
    path = write(tmp_path / "a", noise(frames), rate_hz, format=container, subtype=subtype)
    info = probed(path)
    assert info == AudioInfo(frames, rate_hz, 1, exact_seek=True, problem="")
    whole, reader = read(path)
    assert len(whole) == info.samples == resampled(frames, rate_hz)
    assert (reader.frames_read, reader.invalid_s, reader.broken_s) == (frames, None, None)
    for start in [*STARTS, len(whole) - 1, len(whole)]:
        np.testing.assert_array_equal(read(path, start=start)[0], whole[start:])


@pytest.mark.slow
@pytest.mark.parametrize("rate_hz", [22_050, 44_100, 48_000, 250_000, 384_000])
def test_what_is_read_from_the_middle_does_not_drift_within_minutes(tmp_path: Path, rate_hz: int) -> None:
    sound = np.tile((noise(rate_hz + 1) * 2**15).astype(np.int16), 120)  # not a whole number of seconds
    path = write(tmp_path / "a.wav", sound, rate_hz)
    whole, _ = read(path)
    assert probed(path).exact_seek
    for start in (60 * SAMPLE_RATE_HZ + 1, 119 * SAMPLE_RATE_HZ + 7):
        samples = np.empty(0, np.float32)
        with closing(Reader(str(path), probed(path), start=start).blocks()) as blocks:
            while len(samples) < SAMPLE_RATE_HZ // 2:
                samples = np.concatenate([samples, next(blocks)])
        np.testing.assert_array_equal(samples, whole[start : start + len(samples)])


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.integers(1000, 50_000).map(lambda times: 4 * times),  # gcd(rate, 16000) is 4 or more
    start=st.integers(0, 3 * SAMPLE_RATE_HZ // 2),
    block_values=st.integers(500, 20_000),
)
@example(rate_hz=31_012, start=20_000, block_values=5000)  # 4000 : 7753
@example(rate_hz=175_216, start=9024, block_values=500)  # two sums differ by 2.8e-7
def test_at_any_rate_that_may_be_read_from_the_middle_the_samples_are_the_same(
    rate_hz: int, start: int, block_values: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder, "a.wav"), noise(3 * rate_hz // 2), rate_hz, subtype="FLOAT")
        assume(probed(path).exact_seek)
        whole, _ = read(path)
        assert len(whole) == probed(path).samples
        start = min(start, len(whole))
        patch.setattr(decode, "BLOCK_VALUES", block_values)
        np.testing.assert_allclose(read(path, start=start)[0], whole[start:], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("rate_hz", [250, 500, 1000, 1600, 2000])
def test_the_low_rates_of_whales_and_elephants_are_read_exactly_or_not_from_the_middle(
    tmp_path: Path, rate_hz: int
) -> None:
    path = write(tmp_path / "a.wav", noise(6 * rate_hz), rate_hz, subtype="FLOAT")
    whole, _ = read(path)
    assert len(whole) == 6 * SAMPLE_RATE_HZ
    for start in STARTS if probed(path).exact_seek else []:
        np.testing.assert_allclose(read(path, start=start)[0], whole[start:], atol=ROUNDING, rtol=0)


def test_a_sound_keeps_its_pitch_and_its_level_at_every_rate(tmp_path: Path) -> None:
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    for rate_hz in RATES_HZ:
        tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate_hz) / rate_hz)
        samples, _ = read(write(tmp_path / "a.wav", tone, rate_hz, subtype="FLOAT"))
        np.testing.assert_allclose(samples[1000:-1000], expected[1000:-1000], atol=1e-4)


def test_what_16_khz_cannot_hold_is_gone(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 15_000 * np.arange(96_000) / 48_000)
    samples, _ = read(write(tmp_path / "a.wav", tone, 48_000, subtype="FLOAT"))
    assert np.abs(samples[1000:-1000]).max() < 1e-4


@pytest.mark.parametrize(("container", "subtype"), COMPRESSED)
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 48_000])
def test_a_format_that_cannot_be_read_exactly_from_its_middle_says_so_and_is_read_whole(
    tmp_path: Path, container: str, subtype: str, rate_hz: int
) -> None:
    time_s = np.arange(SECONDS * rate_hz) / rate_hz
    sound = 0.5 * np.sin(2 * np.pi * (300 + 100 * time_s) * time_s).astype(np.float32)
    path = write(tmp_path / "a", sound, rate_hz, format=container, subtype=subtype)
    info = probed(path)
    assert info == AudioInfo(len(sound), rate_hz, 1, exact_seek=False, problem="")
    samples, reader = read(path)
    assert len(samples) == info.samples
    assert reader.broken_s is None
    original, _ = read(write(tmp_path / "b.wav", sound, rate_hz))
    assert np.corrcoef(samples, original)[0, 1] > LEAST_CORRELATION


def test_a_rate_that_shares_too_little_with_16_khz_is_not_read_from_its_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(44_101), 44_101)
    assert not probed(path).exact_seek
    assert len(read(path)[0]) == SAMPLE_RATE_HZ


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_the_mix_is_the_mean_of_the_channels_and_each_can_be_read_alone(
    tmp_path: Path, channels: int, rate_hz: int
) -> None:
    frames = 2 * rate_hz
    sound = noise(frames, channels).reshape(frames, channels)
    path = write(tmp_path / "a.wav", sound, rate_hz, subtype="FLOAT")
    assert probed(path).channels == channels
    alone = [read(write(tmp_path / "b.wav", sound[:, i], rate_hz, subtype="FLOAT"))[0] for i in range(channels)]
    for channel in range(channels):
        np.testing.assert_array_equal(read(path, channel + 1)[0], alone[channel])
        np.testing.assert_array_equal(read(path, channel + 1, start=9999)[0], alone[channel][9999:])
    np.testing.assert_allclose(read(path)[0], np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(read(path, start=9999)[0], read(path)[0][9999:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20, -1e20])
@pytest.mark.parametrize("channel", [None, 2])
def test_invalid_samples_become_silence_and_the_first_is_reported(
    tmp_path: Path, bad: float, channel: int | None
) -> None:
    sound = noise(3 * SAMPLE_RATE_HZ, 2)
    broken = sound.copy()
    broken[[24_000, 24_001, 40_000], 1] = bad
    samples, reader = read(write(tmp_path / "bad.wav", broken, subtype="FLOAT"), channel)
    assert reader.invalid_s == 1.5
    assert reader.broken_s is None
    expected = (sound.sum(1) / 2 if channel is None else sound[:, 1]).copy()
    expected[[24_000, 24_001, 40_000]] = 0
    np.testing.assert_allclose(samples, expected, atol=1e-7)
    assert read(tmp_path / "bad.wav", channel, start=30_000)[1].invalid_s == 2.5
    assert read(tmp_path / "bad.wav", 1)[1].invalid_s is None


def test_an_invalid_sample_in_a_later_block_of_a_resampled_recording_is_reported_in_time_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "BLOCK_VALUES", 1000)
    sound = noise(3 * 44_100)
    sound[2 * 44_100] = np.nan
    samples, reader = read(write(tmp_path / "a.wav", sound, 44_100, subtype="FLOAT"))
    assert reader.invalid_s == 2.0
    assert np.isfinite(samples).all()


def test_loud_samples_of_a_float_file_are_kept(tmp_path: Path) -> None:
    samples, reader = read(write(tmp_path / "a.wav", np.full(5000, 32_768.0), subtype="FLOAT"))
    assert reader.invalid_s is None
    np.testing.assert_array_equal(samples, 32_768.0)


@pytest.mark.parametrize("block_values", [2**18, 2**14, 5000, 997, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_flac_file_that_is_cut_off_gives_all_there_is_whatever_the_size_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_values: int, channels: int
) -> None:
    sound = noise(10 * SAMPLE_RATE_HZ, channels)
    path = write(tmp_path / "a.flac", sound)
    original, _ = read(path)
    shorten(path, 0.6)
    monkeypatch.setattr(decode, "BLOCK_VALUES", block_values)
    samples, reader = read(path)
    assert len(samples) % FLAC_BLOCK_FRAMES == 0
    assert 0.55 * len(sound) < len(samples) < 0.65 * len(sound)  # noise hardly shrinks
    np.testing.assert_array_equal(samples, original[: len(samples)])
    assert reader.frames_read == len(samples) == probed(path).frames
    assert f"announces {len(sound) - len(samples):,} samples more than the file has" in probed(path).problem


def test_a_break_near_the_end_of_a_flac_file_is_met_while_decoding(tmp_path: Path) -> None:
    path = shorten(write(tmp_path / "a.flac", noise(10 * SAMPLE_RATE_HZ)), 0.9)
    samples, reader = read(path)
    assert len(samples) == reader.frames_read < probed(path).frames
    assert reader.broken_s == len(samples) / SAMPLE_RATE_HZ


def test_beyond_the_break_there_is_nothing(tmp_path: Path) -> None:
    path = shorten(write(tmp_path / "a.flac", noise(10 * SAMPLE_RATE_HZ)), 0.6)
    samples, reader = read(path, start=8 * SAMPLE_RATE_HZ)
    assert len(samples) == 0
    assert reader.broken_s is not None


def test_a_resampled_recording_ends_at_the_break_too(tmp_path: Path) -> None:
    sound = noise(10 * 44_100)
    path = write(tmp_path / "a.flac", sound, 44_100)
    original, _ = read(path)
    samples, reader = read(shorten(path, 0.6))
    assert len(samples) == resampled(reader.frames_read, 44_100)
    assert reader.frames_read == probed(path).frames
    assert "samples more than the file has" in probed(path).problem
    np.testing.assert_allclose(samples[:-PRIMING_SAMPLES], original[: len(samples) - PRIMING_SAMPLES], atol=1e-7)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "AIFF", "AU", "W64", "RF64", "CAF"])
def test_a_file_shorter_than_its_header_says_is_read_up_to_its_end_and_says_so(tmp_path: Path, container: str) -> None:
    path = write(tmp_path / "a", noise(10 * SAMPLE_RATE_HZ), format=container)
    original, _ = read(path)
    assert probed(path).problem == ""
    info = probed(shorten(path, 0.6))
    samples, reader = read(path)
    assert "bytes more than the file has" in info.problem
    assert 0.59 * len(original) < len(samples) < 0.6 * len(original)
    assert len(samples) == info.samples == reader.frames_read
    np.testing.assert_array_equal(samples, original[: len(samples)])


def test_an_mp3_file_that_is_cut_off_is_read_up_to_the_break(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp3", noise(10 * SAMPLE_RATE_HZ))
    original, _ = read(path)
    samples, reader = read(shorten(path, 0.6))
    info = probed(path)
    assert "bytes more than the file has" in info.problem
    assert (info.samples, reader.broken_s) == (len(samples), None)
    assert 0.5 * len(original) < len(samples) < 0.65 * len(original)
    np.testing.assert_allclose(samples[:-2000], original[: len(samples) - 2000], atol=1e-6)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("at", ["within a page", "between pages"])
def test_an_ogg_file_without_its_end_of_stream_mark_is_cut_off(tmp_path: Path, subtype: str, at: str) -> None:
    path = write(tmp_path / "a.ogg", noise(8 * SAMPLE_RATE_HZ), format="OGG", subtype=subtype)
    original, _ = read(path)
    assert probed(path).problem == ""
    content = path.read_bytes()
    end = int(0.6 * len(content))
    path.write_bytes(content[: end if at == "within a page" else content.rindex(b"OggS", 0, end)])
    samples, _ = read(path)
    assert 0.3 * len(original) < len(samples) < 0.65 * len(original)
    np.testing.assert_allclose(samples, original[: len(samples)], atol=1e-6)
    assert "end-of-stream" in probed(path).problem


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "AU", "W64", "RF64", "OGG"])
def test_a_header_without_samples_is_empty(tmp_path: Path, container: str) -> None:
    with pytest.raises(AudioError, match="no samples") as caught:
        probed(write(tmp_path / "a", noise(0), format=container))
    assert caught.value.status == "empty"


def test_what_is_no_audio_is_unreadable_and_the_reason_helps(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("Dear diary,\n" * 100)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    reasons = {}
    for name in ("text", "empty", "folder", "loop", "missing"):
        path = tmp_path / f"{name}.wav"
        with pytest.raises(AudioError) as caught:
            probe(str(path), path.stat().st_size if name == "text" else 0)
        assert caught.value.status == "unreadable"
        reasons[name] = str(caught.value)
    assert reasons == {
        "text": "not audio that libsndfile reads: Format not recognised.",
        "empty": "the file is empty (0 bytes)",
        "folder": "cannot be opened: Is a directory",
        "loop": "cannot be opened: Too many levels of symbolic links",
        "missing": "cannot be opened: No such file or directory",
    }


def test_a_file_that_goes_after_it_was_probed_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1000))
    info = probed(path)
    path.unlink()
    with pytest.raises(AudioError, match="No such file"):
        list(Reader(str(path), info).blocks())


def test_a_file_that_became_shorter_after_it_was_probed_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(SAMPLE_RATE_HZ))
    info = probed(path)
    write(path, noise(1000))
    reader = Reader(str(path), info)
    assert sum(map(len, reader.blocks())) == 1000
    assert reader.broken_s == 1000 / SAMPLE_RATE_HZ
    beyond = Reader(str(path), info, start=8000)
    assert sum(map(len, beyond.blocks())) == 0
    assert beyond.broken_s is not None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("claimed", [2**35, 2**36 - 1])
def test_a_flac_header_that_claims_weeks_is_not_believed(tmp_path: Path, claimed: int) -> None:
    path = write(tmp_path / "a.flac", noise(SAMPLE_RATE_HZ))
    original, _ = read(path)
    claim_flac_frames(path, claimed)
    info = probed(path)
    assert (info.frames, info.exact_seek) == (SAMPLE_RATE_HZ, True)
    assert f"announces {claimed - SAMPLE_RATE_HZ:,} samples more than the file has" in info.problem
    samples, _ = read(path)
    np.testing.assert_array_equal(samples, original)


@pytest.mark.timeout(20)
def test_a_flac_file_that_was_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    # Such a header says 0 frames: the length is not known.
    path = write(tmp_path / "a.flac", noise(SAMPLE_RATE_HZ))
    original, _ = read(path)
    claim_flac_frames(path, 0)
    samples, reader = read(path)
    np.testing.assert_array_equal(samples, original)
    assert reader.broken_s is None


def announce(path: Path, samples: Samples, data_bytes: int) -> AudioInfo:
    """A WAV file whose header announces `data_bytes` of samples."""
    content = bytearray(write(path, samples).read_bytes())
    assert content[36:40] == b"data"
    content[4:8] = struct.pack("<I", min(data_bytes + 36, 2**32 - 1))
    content[40:44] = struct.pack("<I", data_bytes)
    path.write_bytes(content)
    return probed(path)


UNKNOWN = {
    "sox": 0x7FFFF000,
    "arecord": 2**31,
    "largest int": 2**31 - 1,
    "ffmpeg": 2**32 - 1,
    "less a header": 2**32 - 1 - 36,
}


@pytest.mark.parametrize("data_bytes", UNKNOWN.values(), ids=list(UNKNOWN))
def test_a_wav_file_that_was_written_to_a_pipe_is_whole(tmp_path: Path, data_bytes: int) -> None:
    info = announce(tmp_path / "a.wav", noise(SAMPLE_RATE_HZ), data_bytes)
    assert info == AudioInfo(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, 1, exact_seek=True, problem="", layouts=info.layouts)
    samples, reader = read(tmp_path / "a.wav")
    assert len(samples) == SAMPLE_RATE_HZ
    assert reader.broken_s is None


@pytest.mark.parametrize("hours", [1, 24, 36])
def test_a_wav_header_that_announces_a_day_is_missed_when_there_is_a_second(tmp_path: Path, hours: int) -> None:
    info = announce(tmp_path / "a.wav", noise(SAMPLE_RATE_HZ), 2 * SAMPLE_RATE_HZ * 3600 * hours)
    assert info.samples == SAMPLE_RATE_HZ
    assert "bytes more than the file has" in info.problem


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_file_that_is_kept_open_is_read_as_a_file_opened_again(tmp_path: Path, name: str) -> None:
    path = str(write(tmp_path / name, noise(60_000), 16_000))
    info, kept = probe(path, (tmp_path / name).stat().st_size), {}  # type: ignore[var-annotated]
    for start in (30_000, 0, 45_000, 10_000):
        one, other = (next(Reader(path, info, None, start, kept_open=each).blocks())[:5000] for each in (kept, None))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    (file,) = kept.values()
    file.close()
