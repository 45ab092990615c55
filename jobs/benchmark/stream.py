"""`satpipe benchmark stream`: the delay from a chunk's last sample to its line, on one CPU, as JSON.

The command runs as a process and reads in real time from a pipe, or from growing files if there are several streams.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic, sleep
from typing import Any

import numpy as np
import torch
from satpipe.jobs.benchmark.common import SATPIPE, Say, dated, random_weights
from satpipe.sat.model.config import BUNDLED
from satpipe.sat.weights.registry import load_checkpoint

BLOCK_S = 0.01  # written at once, as by a sound card
SECONDS = 40.0


@dataclass(frozen=True)
class Case:
    """A model, and the streams it tags at the same time."""

    model: str
    rate_hz: int = 16_000
    channels: int = 1
    streams: int = 1


CASES = (
    Case("SAT_T_2s"),
    Case("SAT_T_2s", 48_000, 2),
    Case("SAT_T_2s", streams=8),
    Case("SAT_T_1s"),
    Case("SAT_S_2s"),
    Case("SAT_B_2s"),
)


def benchmark(say: Say, seconds: float = SECONDS, cases: tuple[Case, ...] = CASES) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        say: Called with the name of each measurement before it starts.
        seconds: Length of the audio of each case.
        cases: The cases.
    """
    runs = []
    with TemporaryDirectory() as name:
        for case in cases:
            say(f"{case.model}, {case.streams} x {case.rate_hz / 1000:g} kHz, {case.channels} channels")
            delays_s = _delays(case, seconds, Path(name))
            runs.append({
                "model": case.model,
                "rate_hz": case.rate_hz,
                "channels": case.channels,
                "streams": case.streams,
                "chunks": len(delays_s),
                "median_s": median(delays_s),
                "p95_s": quantiles(delays_s, n=20)[-1],
                "max_s": max(delays_s),
            })  # fmt: skip
    return dated({"torch": torch.__version__, "block_s": BLOCK_S, "runs": runs})


def _delays(case: Case, seconds: float, folder: Path) -> list[float]:
    """Run the command on one CPU; return the seconds from the last sample of each whole chunk to its line."""
    bundled = case.model == load_checkpoint(BUNDLED).config.name
    weights = BUNDLED if bundled else random_weights(case.model, folder)
    paths = [folder / f"{number}.raw" for number in range(case.streams)] if case.streams > 1 else []
    command = [*SATPIPE, "stream", "--live", "--format", "s16le", "--idle-s", "1"]
    command += ["--rate-hz", str(case.rate_hz), "--channels", str(case.channels)]
    command += ["--model", weights, *map(str, paths)]
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("wb", buffering=0)) for path in paths]
        process = opened.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=_one_processor)
        )
        if not process.stdin or not process.stdout:
            raise RuntimeError("the command has no pipes")
        for _ in range(case.streams):
            process.stdout.readline()  # of the start
        begun_s = monotonic()
        writer = Thread(target=_write, args=(files or [process.stdin], case, seconds, begun_s))
        writer.start()
        delays_s = list(_read(process.stdout, begun_s, seconds))
        writer.join()
    if process.returncode:
        raise RuntimeError(f"satpipe stream ended with code {process.returncode}")
    return delays_s


def _one_processor() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _write(sinks: list[Any], case: Case, seconds: float, begun_s: float) -> None:
    """Write noise as a sound card would: each block at the time of its last sample."""
    frames = round(BLOCK_S * case.rate_hz)
    noise = np.random.default_rng(0).integers(-3000, 3000, (frames * 100, case.channels), dtype=np.int16)
    blocks = [noise[at : at + frames].tobytes() for at in range(0, len(noise), frames)]
    for number in range(round(seconds / BLOCK_S)):
        sleep(max(0.0, begun_s + (number + 1) * BLOCK_S - monotonic()))
        for sink in sinks:
            sink.write(blocks[number % len(blocks)])
            sink.flush()
    for sink in sinks:
        sink.close()


def _read(lines: Any, begun_s: float, seconds: float) -> Iterator[float]:
    for text in lines:
        line = json.loads(text)
        if "tags" in line and line["end_s"] <= seconds - 0.5:  # the last chunk is not whole
            yield monotonic() - begun_s - line["end_s"]
