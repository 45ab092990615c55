"""Measure the speed of reading recordings on one CPU, compared with that of decoding and resampling alone."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import soundfile
import soxr
from satpipe.jobs.benchmark.common import in_turns
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.levels import Levels
from satpipe.pipeline.recordings.recording import AudioInfo
from satpipe.pipeline.recordings.resample import QUALITY, Samples
from satpipe.sat.model.config import SAMPLE_RATE_HZ

ROUNDS = 3
BLOCK_FRAMES = 2**17
STEREO_HZ = 48_000
WRITTEN_FRAMES = 2**12  # at once: libsndfile crashes on long blocks of Opus
STEREO = "48 kHz stereo FLAC"
COMPRESSED = {"48 kHz stereo MP3": ("MP3", "MPEG_LAYER_III"), "48 kHz stereo Opus": ("OGG", "OPUS")}
AAC = "48 kHz stereo AAC"


def write(path: Path, sound: Samples, duration_s: int, rate_hz: int, channels: int, *kind: str) -> Path:
    """Write sound at 16 kHz as a file of another rate, repeated until it is long enough; channels differ.

    Args:
        path: The file.
        sound: [n] at 16 kHz.
        duration_s: Length of the file.
        rate_hz: Rate of the file.
        channels: One or two.
        kind: libsndfile's names of container and codec; by default the suffix says the container, with 16 bits.
    """
    once, missing = soxr.resample(sound, SAMPLE_RATE_HZ, rate_hz), duration_s * rate_hz
    container, codec = kind or (None, "PCM_16")
    with soundfile.SoundFile(path, "w", rate_hz, channels, codec, format=container) as file:
        while missing:
            block = once[:missing]
            both = np.stack([block, np.roll(block, rate_hz // 100)][:channels], axis=1)
            for at in range(0, len(both), WRITTEN_FRAMES):
                file.write(both[at : at + WRITTEN_FRAMES])
            missing -= len(block)
    return path


def write_stereo(sound: Samples, folder: Path, flac_s: int, compressed_s: int) -> dict[str, Path]:
    """Write the same sound in several formats; AAC only where PyAV, the extra `ffmpeg`, is installed."""
    files = {STEREO: write(folder / "stereo.flac", sound, flac_s, STEREO_HZ, 2)}
    for name, kind in COMPRESSED.items():
        files[name] = write(folder / f"stereo.{kind[0].lower()}", sound, compressed_s, STEREO_HZ, 2, *kind)
    try:
        import av
    except ImportError:
        return files
    samples, _ = soundfile.read(files[STEREO], frames=compressed_s * STEREO_HZ, dtype="float32")
    files[AAC] = folder / "stereo.m4a"
    with av.open(files[AAC], "w") as file:
        stream = file.add_stream("aac", rate=STEREO_HZ, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", "stereo")
        frame.sample_rate = STEREO_HZ
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return files


def reading(files: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Measure reading as a worker does it, and what no reader can do without.

    Args:
        files: Recordings by the name of their format.

    Returns:
        For each: x realtime of `read`, and of `decode` and `resample` alone (without `resample` at 16 kHz); `share`,
        the speed of `read` divided by that of both together.
    """
    found = {}
    for name, path in files.items():
        info = probe(str(path), path.stat().st_size)
        alone = {"decode": partial(_decode, path, info)}
        if info.rate_hz != SAMPLE_RATE_HZ:
            alone["resample"] = partial(_resample, info)
        seconds = in_turns(alone | {"read": partial(_read, path, info)}, ROUNDS + 1, process_time)
        turns = list(zip(*seconds.values(), strict=True))[1:]  # the first warms up
        found[name] = {part: info.duration_s / median(times[1:]) for part, times in seconds.items()}
        found[name]["share"] = median(sum(others) / read for *others, read in turns)
    return found


def _decode(path: Path, info: AudioInfo) -> None:
    _drain(_decoded_by_ffmpeg(path) if info.container else soundfile.blocks(path, BLOCK_FRAMES, dtype="float32"))


def _decoded_by_ffmpeg(path: Path) -> Iterator[Any]:
    import av

    with av.open(path) as file:
        for frame in file.decode(audio=0):
            yield frame.to_ndarray()


def _resample(info: AudioInfo) -> None:
    mono = np.random.default_rng(0).standard_normal(BLOCK_FRAMES, dtype=np.float32)
    stream = soxr.ResampleStream(info.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality=QUALITY)
    for _ in range(round(info.frames / BLOCK_FRAMES)):
        stream.resample_chunk(mono)


def _read(path: Path, info: AudioInfo) -> None:
    _drain(Reader(str(path), info, levels=Levels(info.rate_hz)).blocks())


def _drain(blocks: Iterable[Any]) -> None:
    for _ in blocks:
        pass
