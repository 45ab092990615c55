"""`satpipe benchmark soak`: memory and file handles must not grow while hours of sound are tagged and streamed.

Recordings are repeated to make files of one hour for `tag`, and a stream of at most one hour for `stream`, which
receives it as fast as possible.
"""

import os
import subprocess
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import soundfile
from satpipe.jobs.benchmark.common import SATPIPE, Say, dated, sound_of
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

FILE_HOURS = 1.0
SAMPLE_S = 0.2
STEADY = slice(3, -1)  # the steady part of a run's ten equal parts: without its start and its end
MAX_GROWTH_MB = 100.0
MAX_GROWTH_HANDLES = 16


def benchmark(recordings: str | Path, hours: float, say: Say) -> dict[str, Any]:
    """Run both commands, and return the memory and handles they used.

    Args:
        recordings: Folder of recordings whose sound is repeated.
        hours: Length of the audio for `tag`.
        say: Called with the name of each measurement before it starts.

    Raises:
        ConfigError: The folder contains no recordings, or psutil is not installed.
    """
    try:
        import psutil  # noqa: F401
    except ImportError as error:
        raise ConfigError("soak needs psutil: pip install psutil") from error
    sound, stream_hours = sound_of(recordings), min(1.0, hours)
    with TemporaryDirectory() as name:
        say(f"{hours:g} h through satpipe tag")
        tagged = _tag(Path(name), sound, hours)
        say(f"{stream_hours:g} h through satpipe stream")
        return dated({"tag": tagged, "stream": _stream(sound, stream_hours)})


def _tag(folder: Path, sound: Samples, hours: float) -> dict[str, Any]:
    recordings = folder / "recordings"
    recordings.mkdir()
    file_hours = min(FILE_HOURS, hours / 4)
    frames = int(file_hours * 3600 * SAMPLE_RATE_HZ)
    soundfile.write(recordings / "0.wav", np.resize(sound, frames), SAMPLE_RATE_HZ, subtype="PCM_16")
    for number in range(1, round(hours / file_hours)):
        os.link(recordings / "0.wav", recordings / f"{number}.wav")
    arguments = ("tag", str(recordings), "-o", str(folder / "out"), "--precision", "bf16", "--quiet")
    return _watched(subprocess.Popen([*SATPIPE, *arguments]), hours)


def _stream(sound: Samples, hours: float) -> dict[str, Any]:
    process = subprocess.Popen([*SATPIPE, "stream"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    content = (sound * 2**15).astype("<i2").tobytes()
    missing = int(hours * 3600 * SAMPLE_RATE_HZ) * 2

    def feed(sink: Any) -> None:
        with sink:
            for start in range(0, missing, len(content)):
                sink.write(content[: missing - start])

    writer = Thread(target=feed, args=(process.stdin,))
    writer.start()
    result = _watched(process, hours)
    writer.join()
    return result


def _watched(process: subprocess.Popen[bytes], hours: float) -> dict[str, Any]:
    """Sample the memory and handles of a command and its descendants until it ends."""
    begun_s = time.monotonic()
    samples = []
    while process.poll() is None:
        samples.append(used(process.pid))
        time.sleep(SAMPLE_S)
    elapsed_s = time.monotonic() - begun_s
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with code {process.returncode}")
    memory_mb, handles = (_tenths(values) for values in zip(*samples, strict=True))
    return {
        "hours": hours,
        "elapsed_s": elapsed_s,
        "x_realtime": hours * 3600 / elapsed_s,
        "samples": len(samples),
        "memory_mb": memory_mb,
        "handles": handles,
    }


def used(pid: int) -> tuple[float, int]:
    """Return the resident memory in MB and the open files of a process and its descendants."""
    import psutil

    memory_mb, handles = 0.0, 0
    try:
        for process in [root := psutil.Process(pid), *root.children(recursive=True)]:
            memory_mb += process.memory_info().rss / 2**20
            handles += process.num_fds()
    except psutil.Error:  # a process has just ended
        pass
    return memory_mb, handles


def _tenths(values: tuple[float, ...]) -> list[float]:
    """Return the median of each tenth of a run."""
    return [float(median(part)) for part in np.array_split(values, 10) if len(part)]


def _growth(result: dict[str, Any], key: str) -> float:
    """Return the difference between the end and the start of the steady part of a run."""
    steady = result[key][STEADY]
    return float(median(steady[-2:]) - median(steady[:2]))


def problems(figures: dict[str, Any]) -> list[str]:
    """Return a message for each value that grew too much."""
    return [
        f"{name}: {key} grew by {_growth(figures[name], key):.0f}: {figures[name][key]}"
        for name in ("tag", "stream")
        for key, limit in (("memory_mb", MAX_GROWTH_MB), ("handles", MAX_GROWTH_HANDLES))
        if _growth(figures[name], key) > limit
    ]
