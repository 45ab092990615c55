"""What the measurements share: the machine, its threads, the sound, and the JSON file."""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import ConfigError

SATPIPE = (sys.executable, "-c", "from satpipe.jobs.commands.main import main; main()")
"""The command, to be run as a process."""
Say = Callable[[str], None]
"""Called with what is measured next."""


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


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use this number of threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sound_of(recordings: str | Path) -> Samples:
    """Return all recordings of a folder, one after the other, at 16 kHz.

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
