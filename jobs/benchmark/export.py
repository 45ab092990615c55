"""`satpipe benchmark export`: size and speed of exported models on one CPU, as JSON.

One run measures everything in turn, so that the ratios hold even if other work slows the machine down.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from satpipe.jobs.benchmark.common import dated, in_turns, random_weights
from satpipe.jobs.export.job import export
from satpipe.jobs.export.runtime import open_onnx, open_torchscript, read, score
from satpipe.jobs.options.models import ExportOptions
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.model.config import BUNDLED, SAMPLE_RATE_HZ
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.weights.registry import load_checkpoint

MODELS = (BUNDLED, "SAT_T_1s", "SAT_S_2s", "SAT_B_2s")
"""The bundled model, and configurations with random weights, which do not affect speed."""
SECONDS = 60
_ROUNDS = 3  # the fastest round counts


def benchmark(recordings: str, models: tuple[str, ...] = MODELS, seconds: float = SECONDS) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        recordings: Folder of recordings to measure on.
        models: Names of the models.
        seconds: Length of the audio on which speed is measured.

    Raises:
        ConfigError: The folder contains no recordings, or an extra is not installed.
    """
    sound = np.concatenate(list(read((recordings,))))[: round(seconds * SAMPLE_RATE_HZ)]
    with TemporaryDirectory() as folder, threads(1):
        measured = [_model(name, recordings, sound, Path(folder)) for name in models]
    versions = {name: version(name) for name in ("satpipe", "torch", "onnxruntime", "onnx")}
    return dated({"versions": versions, "models": measured})


def _model(name: str, recordings: str, sound: Samples, folder: Path) -> dict[str, Any]:
    """Export a model to all formats, and time it in torch and as each file."""
    path, check = (name, (recordings,)) if name == BUNDLED else (random_weights(name, folder), ())
    files = {"onnx": "fp32.onnx", "int8": "int8.onnx", "torchscript": "fp32.pt"}
    done = {
        "onnx": export(ExportOptions(path, folder / files["onnx"], check=check)),
        "int8": export(ExportOptions(path, folder / files["int8"], int8=True, check=check)),
        "torchscript": export(ExportOptions(path, folder / files["torchscript"], "torchscript", check=check)),
    }
    model = load_checkpoint(path).model()
    calls = {
        "onnx": open_onnx(folder / files["onnx"], threads=1),
        "int8": open_onnx(folder / files["int8"], threads=1),
        "torchscript": open_torchscript(folder / files["torchscript"]),
    }
    runs: dict[str, Callable[[], object]] = {"torch": lambda: StreamingTagger(model).push(torch.from_numpy(sound))}
    runs |= {way: partial(score, call, model.config, sound) for way, call in calls.items()}
    elapsed_s = in_turns(runs, _ROUNDS)
    return {
        "name": name,
        "config": model.config.name,
        "size_bytes": {way: file.size_bytes for way, file in done.items()},
        "x_realtime": {way: len(sound) / SAMPLE_RATE_HZ / min(each) for way, each in elapsed_s.items()},
        "difference": {way: asdict(file.difference) for way, file in done.items()},
    }
