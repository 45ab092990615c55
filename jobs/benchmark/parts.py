"""Measure the speed of each part of tagging alone on one CPU, compared with the limits of the CPU."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from satpipe.jobs.benchmark.common import in_turns
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.resample import QUALITY
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.schemas import recording_row, staged_table
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.sat.model.batching import BATCH_CHUNKS
from satpipe.sat.model.chunk_parallel import consecutive
from satpipe.sat.model.config import (
    CENTRE_SAMPLES,
    CLASSES,
    MEL_BANDS,
    PATCH_BANDS,
    PATCH_FRAMES,
    SAMPLE_RATE_HZ,
    ModelConfig,
)
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import PRECISIONS

ROUNDS = 3
BLOCK_S = 16  # decoded at once by a worker
COPIED_BYTES = 2**28
WRITTEN_CHUNKS = 2048
MODEL_CHUNKS = BATCH_CHUNKS


def parts(wav: Path, flac: Path, folder: Path, config: ModelConfig) -> dict[str, float]:
    """Measure everything except the model.

    Args:
        wav: A recording, 16 kHz mono.
        flac: A recording, 48 kHz stereo.
        folder: Folder for tables.
        config: Configuration of the model whose scores are written.

    Returns:
        x realtime of each part and of the FFTs in log-mel, and `memory_copy`, bytes per second.
    """
    samples = torch.randn(BLOCK_S * SAMPLE_RATE_HZ + 2 * CENTRE_SAMPLES)
    framed = samples.unfold(0, 2 * CENTRE_SAMPLES, SAMPLE_RATE_HZ // 100).contiguous()
    high = np.random.default_rng(0).standard_normal(3 * BLOCK_S * SAMPLE_RATE_HZ, dtype=np.float32)
    source, target = torch.zeros(COPIED_BYTES // 4), torch.zeros(COPIED_BYTES // 4)
    log_mel = LogMel()
    output = Output(folder)
    written_s = WRITTEN_CHUNKS * config.chunk_samples / SAMPLE_RATE_HZ
    row = recording_row("noise", 0, 0, "ok", "", duration_s=written_s, chunks=WRITTEN_CHUNKS)
    scores = torch.rand(WRITTEN_CHUNKS, CLASSES).numpy()

    def write() -> None:
        with output.staging.stage() as staged:
            staged.write(staged_table([0] * WRITTEN_CHUNKS, list(range(WRITTEN_CHUNKS)), scores))
            spans = staged.conclude([SpanOutcome(("noise", 0, 0, 0, None), WRITTEN_CHUNKS)])
        output.batches.publish(
            [Finished(row, spans)], TableOptions("", config.chunk_samples, 0.1, 10, scores=True), new_name()
        )

    run = {"id": "", "identity": {"scores": True}}
    with torch.inference_mode(), threads(1), output.claim(run):
        seconds = _medians(
            {
                "decode FLAC": lambda: _drain(soundfile.blocks(flac, 2**17, dtype="float32")),
                "decode, mix and resample FLAC": lambda: _drain(_reader(flac).blocks()),
                "decode WAV": lambda: _drain(_reader(wav).blocks()),
                "resample 48 kHz": lambda: soxr.resample(high, 48_000, SAMPLE_RATE_HZ, quality=QUALITY),
                "log-mel": lambda: log_mel.frames(samples),
                "FFTs of log-mel": lambda: torch.fft.rfft(framed),
                "write": write,
                "memory_copy": lambda: target.copy_(source),
            }
        )
    wav_s, flac_s = soundfile.info(wav).duration, soundfile.info(flac).duration
    worth = {"decode FLAC": flac_s, "decode, mix and resample FLAC": flac_s, "decode WAV": wav_s}
    worth |= {"write": written_s, "memory_copy": COPIED_BYTES}
    return {name: worth.get(name, BLOCK_S) / seconds[name] for name in seconds}


def model_parts(model: SAT, precision: str) -> dict[str, float]:
    """Measure the model alone, compared with its matrix products.

    Args:
        model: In float32; it is converted to the precision.
        precision: One of `satpipe.sat.model.precision.PRECISIONS`.

    Returns:
        `x_realtime`; `flops`, the rate of matrix products of the model's shapes; `bound_x_realtime`, the model's speed
        if it computed only these products, at that rate.
    """
    dtype, config = PRECISIONS[precision], model.config
    model.to_precision(dtype)
    chunks = 10 * torch.randn(MODEL_CHUNKS, MEL_BANDS, config.chunk_frames) - 30
    rows, width = MODEL_CHUNKS * config.chunk_tokens, config.width
    operands = [
        (torch.randn(rows, k, dtype=dtype), torch.randn(n, k, dtype=dtype).T, torch.empty(rows, n, dtype=dtype))
        for k, n in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    ]

    def products() -> None:
        for x, weight, out in operands:
            torch.mm(x, weight, out=out)

    with torch.inference_mode(), threads(1):
        _, memory = consecutive(model, chunks)
        seconds = _medians({"model": lambda: model.scores(consecutive(model, chunks, memory)[0]), "products": products})
    rate = sum(2 * rows * x.shape[1] * out.shape[1] for x, _, out in operands) / seconds["products"]
    played_s = MODEL_CHUNKS * config.chunk_samples / SAMPLE_RATE_HZ
    bound = config.chunk_samples / SAMPLE_RATE_HZ * rate / chunk_flops(config)
    return {"x_realtime": played_s / seconds["model"], "flops": rate, "bound_x_realtime": bound}


def chunk_flops(config: ModelConfig) -> int:
    """Return the operations in the matrix products of a chunk, including attention: two for each multiply-add."""
    tokens, width, depth = config.chunk_tokens, config.width, config.depth
    linear = depth * 12 * width**2 + PATCH_BANDS * PATCH_FRAMES * width  # per token
    attention = depth * 2 * (tokens + config.memory_tokens) * width  # per token
    return 2 * (tokens * (linear + attention) + width * config.classes)


def _medians(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each function; the first round warms up and does not count."""
    return {name: median(seconds[1:]) for name, seconds in in_turns(functions, ROUNDS + 1).items()}


def _reader(path: Path) -> Reader:
    return Reader(str(path), probe(str(path), path.stat().st_size))


def _drain(blocks: Iterable[Any]) -> None:
    for _ in blocks:
        pass
