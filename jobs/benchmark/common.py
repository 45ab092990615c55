"""Code that benchmarks share: the machine, timing, audio, random weights and the JSON file."""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.weights.published import save

SATPIPE = (sys.executable, "-c", "from satpipe.jobs.commands.main import main; main()")
"""The command `satpipe`, to be run as a process."""
Say = Callable[[str], None]
"""Called with the name of each measurement before it starts."""


def dated(figures: dict[str, Any]) -> dict[str, Any]:
    """Add the date and the machine to figures."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **figures}


def machine() -> dict[str, Any]:
    """Describe this machine."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"processor": _processor(), "processors": os.cpu_count(), "system": platform.platform(), **gpu}


def write(figures: dict[str, Any], path: Path) -> None:
    """Write figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")


def in_turns(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = perf_counter
) -> dict[str, list[float]]:
    """Run functions in turns, so that other load affects all of them alike; return the seconds of each run."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begun = clock()
            function()
            seconds[name].append(clock() - begun)
    return seconds


def random_weights(name: str, folder: Path) -> str:
    """Write a configuration with random weights, which do not affect speed; return the file."""
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save(SAT(get_config(name)), path)
    return str(path)


def sound_of(recordings: str | Path) -> Samples:
    """Return the audio of all recordings in a folder, concatenated, at 16 kHz.

    Raises:
        ConfigError: The folder contains no recordings.
    """
    blocks = []
    for source in Search((str(recordings),)):
        blocks += list(Reader(source.path, probe(source.path, source.size_bytes)).blocks())
    if not blocks:
        raise ConfigError(f"no recordings in {recordings}")
    return np.concatenate(blocks)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
