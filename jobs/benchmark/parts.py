"""Measure the speed of the model and other parts of tagging alone on one CPU, compared with the limits of the CPU."""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from satpipe.jobs.benchmark.common import in_turns
from satpipe.pipeline.ray_engine import fetch
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.schemas import recording_row, staged_table
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.sat.model.batching import BATCH_CHUNKS, batch_chunks_for
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
from satpipe.sat.weights.checkpoint import Checkpoint

ROUNDS = 3
BLOCK_S = 16  # decoded at once by a worker
COPIED_BYTES = 2**28
WRITTEN_CHUNKS = 2048
MODEL_CHUNKS = BATCH_CHUNKS


def parts(folder: Path, config: ModelConfig) -> dict[str, float]:
    """Measure everything except reading and the model.

    Args:
        folder: Folder for tables.
        config: Configuration of the model whose scores are written.

    Returns:
        x realtime of each part and of the FFTs in log-mel, and `memory_copy`, bytes per second.
    """
    samples = torch.randn(BLOCK_S * SAMPLE_RATE_HZ + 2 * CENTRE_SAMPLES)
    framed = samples.unfold(0, 2 * CENTRE_SAMPLES, SAMPLE_RATE_HZ // 100).contiguous()
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
            [Finished(row, spans)], TableOptions("", "", config.chunk_samples, 0.1, 10, scores=True), new_name()
        )

    run = {"id": "", "identity": {"scores": True}}
    with torch.inference_mode(), threads(1), output.claim(run):
        seconds = _medians(
            {
                "log-mel": lambda: log_mel.frames(samples),
                "FFTs of log-mel": lambda: torch.fft.rfft(framed),
                "write": write,
                "memory_copy": lambda: target.copy_(source),
            }
        )
    worth = {"write": written_s, "memory_copy": COPIED_BYTES}
    return {name: worth.get(name, BLOCK_S) / seconds[name] for name in seconds}


def model_speed(shared: list[Any], precision: str, cuda: bool, seconds: float) -> float:
    """Run the model alone on a worker for some seconds; return x realtime."""
    loaded: Checkpoint = fetch(shared)
    config, device = loaded.config, torch.device("cuda" if cuda else "cpu")
    model, batch_chunks = loaded.model().to(device).to_precision(PRECISIONS[precision]), batch_chunks_for(device)
    chunks = 10 * torch.randn(batch_chunks, MEL_BANDS, config.chunk_frames, device=device) - 30
    batches = 0
    with torch.inference_mode(), threads(1):
        _, memory = consecutive(model, chunks)
        begun = perf_counter()
        while (elapsed_s := perf_counter() - begun) < seconds:
            model.scores(consecutive(model, chunks, memory)[0]).cpu()
            batches += 1
    return batches * batch_chunks * config.chunk_samples / SAMPLE_RATE_HZ / elapsed_s


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
    return {name: median(seconds[1:]) for name, seconds in in_turns(functions, ROUNDS + 1, process_time).items()}
