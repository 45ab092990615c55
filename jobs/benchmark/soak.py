"""A soak: hours of sound through `tag` and `stream`; memory and file handles must not grow.

`python tests/soak.py OUT.json HOURS` takes the example recordings over and over: HOURS of them as files of one hour
through `tag`, an hour at most through one `stream` as fast as it goes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import psutil
import soundfile
from satpipe.jobs.benchmark.tag import machine
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.model.config import SAMPLE_RATE_HZ

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "satpipe"
FILE_HOURS = 1.0
SAMPLE_S = 0.2
STEADY = slice(3, -1)  # of ten equal parts of a run: what is left out are its start and its end
MOST_GROWTH_MB = 100.0
MOST_GROWTH_HANDLES = 16


def soak(hours: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Run both commands, and return what they took."""
    sound = example_sound()
    with TemporaryDirectory() as name:
        folder = Path(name)
        say(f"{hours:g} h through satpipe tag")
        tagged = soak_tag(folder, sound, hours)
        stream_hours = min(1.0, hours)
        say(f"{stream_hours:g} h through satpipe stream")
        streamed = soak_stream(sound, stream_hours)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "tag": tagged,
        "stream": streamed,
    }


def example_sound() -> Samples:
    """The example recordings, one after the other, 16 kHz."""
    blocks: list[Samples] = []
    for source in Search((str(ROOT / "examples" / "recordings"),)):
        blocks += Reader(source.path, probe(source.path, source.size_bytes)).blocks()
    return np.concatenate(blocks)


def soak_tag(folder: Path, sound: Samples, hours: float) -> dict[str, Any]:
    recordings = folder / "recordings"
    recordings.mkdir()
    file_hours = min(FILE_HOURS, hours / 4)
    frames = int(file_hours * 3600 * SAMPLE_RATE_HZ)
    soundfile.write(recordings / "0.wav", np.resize(sound, frames), SAMPLE_RATE_HZ, subtype="PCM_16")
    for number in range(1, round(hours / file_hours)):
        os.link(recordings / "0.wav", recordings / f"{number}.wav")
    command = [COMMAND, "tag", recordings, "-o", folder / "out", "--precision", "bf16", "--quiet"]
    process = subprocess.Popen([*map(str, command)])
    return watched(process, hours)


def soak_stream(sound: Samples, hours: float) -> dict[str, Any]:
    process = subprocess.Popen([str(COMMAND), "stream"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    content = (sound * 2**15).astype("<i2").tobytes()
    missing = int(hours * 3600 * SAMPLE_RATE_HZ) * 2

    def feed() -> None:
        assert process.stdin
        with process.stdin as file:
            for start in range(0, missing, len(content)):
                file.write(content[: missing - start])

    writer = Thread(target=feed)
    writer.start()
    result = watched(process, hours)
    writer.join()
    return result


def watched(process: subprocess.Popen[bytes], hours: float) -> dict[str, Any]:
    """Sample what a command and all it has started take, to its end."""
    begun_s = time.monotonic()
    samples = []
    while process.poll() is None:
        samples.append(taken(process.pid))
        time.sleep(SAMPLE_S)
    elapsed_s = time.monotonic() - begun_s
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with code {process.returncode}")
    memory_mb, handles = (parts(values) for values in zip(*samples, strict=True))
    return {
        "hours": hours,
        "elapsed_s": elapsed_s,
        "x_realtime": hours * 3600 / elapsed_s,
        "samples": len(samples),
        "memory_mb": memory_mb,
        "handles": handles,
    }


def taken(pid: int) -> tuple[float, int]:
    """Resident memory in MB, and open files, of a process and its descendants."""
    memory_mb, handles = 0.0, 0
    try:
        for process in [root := psutil.Process(pid), *root.children(recursive=True)]:
            memory_mb += process.memory_info().rss / 2**20
            handles += process.num_fds()
    except psutil.Error:  # one has just ended
        pass
    return memory_mb, handles


def parts(values: tuple[float, ...]) -> list[float]:
    """The median of each tenth of a run."""
    return [float(median(part)) for part in np.array_split(values, 10) if len(part)]


def growth(result: dict[str, Any], key: str) -> float:
    """How much more there is at the end of the steady part of a run than at its start."""
    steady = result[key][STEADY]
    return float(median(steady[-2:]) - median(steady[:2]))


def problems(figures: dict[str, Any]) -> list[str]:
    """What is not flat."""
    return [
        f"{name}: {key} grew by {growth(figures[name], key):.0f}: {figures[name][key]}"
        for name in ("tag", "stream")
        for key, most in (("memory_mb", MOST_GROWTH_MB), ("handles", MOST_GROWTH_HANDLES))
        if growth(figures[name], key) > most
    ]


def main() -> None:
    figures = soak(float(sys.argv[2]), lambda line: print(line, file=sys.stderr))
    Path(sys.argv[1]).write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit("\n".join(problems(figures)) or 0)


if __name__ == "__main__":
    main()
