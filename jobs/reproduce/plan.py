"""Estimate the cost of a reproduction before it starts: hours on the given GPUs, disk space, data.

Hours are estimates. The bundled model was trained on an H100, and its model card has the time that its last epochs
took; the matrix products of a sample, forward and backward, then give the operations per second that this code
reached. Other stages and sizes are assumed to reach as many, other GPUs in proportion to their peak in bf16, and an
update to take at least `MIN_UPDATE_S`. Larger models usually come closer to the peak, and reading and decoding may be
slower than the GPU, so the true time may be a third or three times as long.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from satpipe.jobs.benchmark.parts import chunk_flops
from satpipe.jobs.options.reproduce import Gpu
from satpipe.jobs.reproduce.audioset import AudioSet
from satpipe.jobs.reproduce.pipeline import CHUNKS_PER_PIECE, Evaluate, Label, Prepare, Tag, Train
from satpipe.jobs.reproduce.steps import Step, next_steps
from satpipe.jobs.train.config import TrainConfig
from satpipe.pipeline.training_data.listing import text_of
from satpipe.pipeline.training_data.shards import CLIP_S
from satpipe.sat.model.config import PATCH_FRAMES, PATCH_SAMPLES, SAMPLE_RATE_HZ, ModelConfig, get_config
from satpipe.sat.training.mae import DECODER_HEADS, DECODER_WIDTH, MASKED

FIGURES = Path(__file__).parents[2] / "sat" / "data" / "bundled_figures.json"
PEAK_TFLOPS: Mapping[Gpu, float] = {"h100": 989, "h200": 989, "a100": 312, "l40s": 362, "rtx4090": 165, "l4": 121}
"""Peak of dense matrix products in bf16, from NVIDIA's data sheets."""
MEASURED_ON: Gpu = "h100"
MIN_UPDATE_S = 0.01  # assumed: about the time in which the kernels of an update are started one by one
UNCERTAINTY = 3
FORWARD_AND_BACKWARD = 3  # the backward pass multiplies twice as much
PAPERS_CLIPS = {"train": 1_904_746, "eval": 18_299}  # section 4.1
CLIP_BYTES = 10 * 32_000 * 6 // 10  # of a clip, as FLAC at 16 kHz, if there is none to look at
SAMPLED_FILES = 500
BYTES_PER_PIECE = 64  # of the ten labels that are kept, compressed
BYTES_PER_CHUNK = 1_100  # of the scores of an evaluated chunk
_PATCH_S = PATCH_SAMPLES / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Cost:
    """The cost of one step.

    Attributes:
        name: Name of the step.
        done: True if it need not run.
        what: What it does.
        gpu_hours: Hours on one GPU; None: reading and decoding determine the time, not the GPU.
        disk_bytes: Size of its folder.
        evaluates: True if it tags or evaluates, and so takes little.
    """

    name: str
    done: bool
    what: str
    gpu_hours: float | None
    disk_bytes: float
    evaluates: bool


def costs(steps: Sequence[Step], out: Path, audioset: AudioSet, gpu: Gpu) -> list[Cost]:
    """Return what each step takes."""
    size = _clip_bytes(audioset)
    clips = {
        "train": sum(_listed(path, "train") for path in audioset.train_segments),
        "eval": _listed(audioset.eval_segments, "eval"),
    }
    return [
        Cost(step.name, step.done(out), *_cost(step, clips, size, rate(gpu)), isinstance(step, Tag | Evaluate))
        for step in steps
    ]


def _cost(
    step: Step, clips: Mapping[str, int], clip_bytes: float, flops_per_s: float
) -> tuple[str, float | None, float]:
    if isinstance(step, Prepare):
        count = _listed(step.segments, "train")
        return f"{count:,} clips", None, count * clip_bytes
    if isinstance(step, Train):
        samples = step.config.epochs * (step.config.clips_per_epoch or clips["train"])
        hours = samples * sample_s(step.config, flops_per_s) / 3600
        return f"{samples:,} samples", hours, _checkpoint_bytes(step.config)
    if isinstance(step, Label):
        pieces = clips["train"] * -(-CLIP_S // step.piece_s)
        teachers = [each for each in step.inputs["teacher"] if isinstance(each, Train)]
        flops = sum(clip_flops(get_config(teacher.config.arch), step.piece_s) for teacher in teachers)
        return f"{pieces:,.0f} pieces", pieces * flops / flops_per_s / 3600, pieces * BYTES_PER_PIECE
    if isinstance(step, Tag):
        chunks = clips["eval"] * CLIP_S / step.delay_s
        return f"{clips['eval']:,} clips", None, chunks * BYTES_PER_CHUNK
    return "figures", None, 0.0


def wall_hours(steps: Sequence[Step], found: Sequence[Cost], gpus: int) -> float:
    """Return the hours until all steps are done: trainings that can run at the same time do so on `gpus`."""
    gpu_hours = {cost.name: cost.gpu_hours or 0.0 for cost in found}
    left, hours = [step for step, cost in zip(steps, found, strict=True) if not cost.done], 0.0
    while left:
        together = next_steps(left)
        busy = [0.0] * gpus  # of each GPU; a free one takes the next training
        for step in together:
            first = busy.index(min(busy))
            busy[first] += gpu_hours[step.name]
        hours += max(busy)
        left = [step for step in left if step not in together]
    return hours


@cache
def rate(gpu: Gpu) -> float:
    """Return the operations per second that training is assumed to reach on a GPU."""
    first, last = (json.loads(FIGURES.read_text())["curve"][place] for place in (0, -1))
    samples_per_s: float = (last["samples"] - first["samples"]) / (last["hours"] - first["hours"]) / 3600
    flops = FORWARD_AND_BACKWARD * CHUNKS_PER_PIECE * chunk_flops(get_config("SAT_T_2s"))
    return samples_per_s * flops * PEAK_TFLOPS[gpu] / PEAK_TFLOPS[MEASURED_ON]


def sample_s(settings: TrainConfig, flops_per_s: float) -> float:
    """Return the seconds of a training sample."""
    flops = FORWARD_AND_BACKWARD * sample_flops(settings)
    return max(flops / flops_per_s, MIN_UPDATE_S / settings.batch)


def sample_flops(settings: TrainConfig) -> float:
    """Return the operations of a sample's forward pass."""
    config = get_config(settings.arch)
    if settings.stage == "sat":
        return settings.sequence_chunks * chunk_flops(config)
    whole = clip_flops(config, CLIP_S)
    if settings.stage == "full":
        return whole * (1 - settings.patch_out) ** 2
    decoder = replace(config, width=DECODER_WIDTH, heads=DECODER_HEADS, depth=settings.decoder_depth)
    return whole * (1 - MASKED) + clip_flops(decoder, CLIP_S)


def clip_flops(config: ModelConfig, seconds: float) -> int:
    """Return the operations of a model for a stretch that it reads at once, or for a streaming one in its chunks."""
    if config.streaming:
        return chunk_flops(config) * round(seconds / config.script_chunk_s)
    return chunk_flops(replace(config, chunk_frames=int(seconds / _PATCH_S) * PATCH_FRAMES))


def _checkpoint_bytes(settings: TrainConfig) -> float:
    """Return the size of the checkpoints that are kept at the same time, and of the export."""
    config = get_config(settings.arch)
    parameters = config.parameters
    if settings.stage == "mae":
        parameters += replace(config, width=DECODER_WIDTH, depth=settings.decoder_depth).parameters
    state = 2 if "8bit" in settings.optimizer else 8
    return parameters * ((4 + state + 4 * bool(settings.ema)) * (settings.average_best + 1) + 4)


def _listed(path: Path, part: str) -> int:
    """Return the number of clips in one of AudioSet's lists; if it does not exist, that of the paper's set."""
    if not path.is_file():
        return PAPERS_CLIPS[part]
    return sum(1 for line in text_of(path).splitlines() if line.strip() and not line.startswith("#"))


def _clip_bytes(audioset: AudioSet) -> float:
    """Return the mean size of some of the clips."""
    files = (path for path in audioset.train_audio.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in islice(files, SAMPLED_FILES)]
    return sum(sizes) / len(sizes) if sizes else CLIP_BYTES
