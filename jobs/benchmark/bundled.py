"""`satpipe benchmark bundled`: quality of the bundled model on validation data and held-out sounds, as JSON."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from satpipe.jobs.benchmark.common import Say
from satpipe.jobs.benchmark.everyday import categories, category_of, everyday
from satpipe.jobs.metrics.segments import calibration, level_counts
from satpipe.jobs.options.measure import BundledFiguresOptions
from satpipe.jobs.train import log as train_log
from satpipe.jobs.train.bundled import RUN, Corpus
from satpipe.jobs.train.group import Group
from satpipe.jobs.train.validation import TRUE_SCORE, TRUE_SEGMENTS, taught, teacher_figures
from satpipe.pipeline.training_data.shards import Shards, decode_clip
from satpipe.pipeline.training_data.teachers import Segments, load_teacher
from satpipe.pipeline.training_data.views import resample
from satpipe.sat.model.batching import score_chunks
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.network import SAT
from satpipe.sat.model.streaming import Chunk, ChunkStream
from satpipe.sat.weights.hub import BUNDLED_CONFIGS
from satpipe.sat.weights.registry import load_checkpoint
from torch import Tensor

BLOCK_SAMPLES = 60 * SAMPLE_RATE_HZ  # whose log-mel is computed at once
Tag = Callable[[Tensor], Tensor]
"""Maps one recording, samples at 16 kHz [n], to scores, [527]."""


@torch.inference_mode()
def benchmark(corpus: Corpus, options: BundledFiguresOptions, known: dict[str, Any], say: Say) -> dict[str, Any]:
    """Measure the bundled model and its teacher.

    Args:
        corpus: The corpus that the model was trained on.
        options: Other options.
        known: Figures of an earlier measurement; those of models that are not measured now are kept, and the curve if
            the folder of the training run does not contain a run of the recipe `bundled`.
        say: Called with the name of each measurement before it starts.

    Raises:
        ConfigError: A part of the corpora or of the training run is missing.
    """
    training = options.training
    Corpus(options.extra).prepare("held-out", training / "held-out")
    sets = {"validation": Shards(training / "validation"), "held_out": Shards(training / "held-out")}
    segments = Segments(training / "validation-labels", sets["validation"])
    recordings = joined(corpus, sets["validation"])
    models = {name: name for name in BUNDLED_CONFIGS} | ({"other": options.other} if options.other else {})
    everything = [in_any_order(sets["validation"])]
    figures: dict[str, Any] = {"models": dict(known.get("models", {}))}
    for name, weights in models.items():
        say(name)
        model = load_checkpoint(weights).model()
        figures["models"][name] = {
            "pieces": taught(sets["validation"], segments, Group()).measure(model, LogMel()),
            "long": on_long_recordings(model, sets["validation"], segments, recordings),
            "joined": on_long_recordings(model, sets["validation"], segments, everything, fill_up=True),
            **{part: on_everyday_sounds(_student(model), clips_with_category(sets[part])) for part in sets},
        }
        del figures["models"][name]["pieces"]["map"]
    say("the teacher")
    teacher = load_teacher(options.teacher)

    def teach(samples: Tensor) -> Tensor:
        return teacher.scores(resample(samples[None], teacher.rate_hz))[0]

    figures["teacher"] = {part: on_everyday_sounds(teach, clips_with_category(sets[part])) for part in sets}
    metrics = training / RUN / train_log.METRICS
    return figures | {"curve": curve_of(metrics) if metrics.exists() else known.get("curve", [])}


def clips_with_category(shards: Shards) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the samples at 16 kHz of each clip whose name contains a category."""
    kinds = categories()
    for number, name in enumerate(shards.clips):
        if category_of(name, kinds) is None:
            continue
        audio = shards.audio(np.array([number], np.int64))[number]
        yield name, torch.from_numpy(decode_clip(audio, SAMPLE_RATE_HZ)[0])


def chunk_scores(model: SAT, log_mel: LogMel, samples: Tensor, *, memory_on: bool = True) -> Tensor:
    """Return the scores of all chunks of a recording; the last chunk is padded with silence.

    Shape:
        [n] -> [K, 527]
    """
    filled = torch.nn.functional.pad(samples, (0, -len(samples) % model.config.chunk_samples))
    chunks = _chunks(ChunkStream(log_mel, model.config), filled)
    keyed = ((None, replace(chunk, first=chunk.first or not memory_on)) for chunk in chunks)
    return torch.stack([scores for _, scores in score_chunks(model, keyed)])


def _chunks(stream: ChunkStream, samples: Tensor) -> Iterator[Chunk]:
    for block in samples.split(BLOCK_SAMPLES):
        yield from stream.push(block)
    yield from stream.finish()


def joined(corpus: Corpus, shards: Shards) -> list[list[int]]:
    """Return the numbers of the clips of each recording with several clips, in order."""
    rows = [row for row in corpus.rows("validation") if row["path"] in shards.by_name]
    origins: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row in rows:
        place = (float(row["start_s"]), shards.by_name[row["path"]])
        origins.setdefault((row["source"], row["origin"]), []).append(place)
    return [[number for _, number in sorted(clips)] for clips in origins.values() if len(clips) > 1]


def in_any_order(shards: Shards) -> list[int]:
    """Return the numbers of all clips in an order that has nothing to do with their content, always the same."""
    order: list[int] = np.random.default_rng(0).permutation(np.argsort(shards.clips)).tolist()
    return order


def on_long_recordings(
    model: SAT, shards: Shards, segments: Segments, recordings: list[list[int]], *, fill_up: bool = False
) -> dict[str, Any]:
    """Return the teacher-mAP over the segments of long recordings, each read from start to end, memory on and off.

    A segment's score is the mean of the chunks whose middle is in it.

    Args:
        model: The model.
        shards: The clips.
        segments: Their segments, with the teacher's scores.
        recordings: The numbers of the clips of each recording, in order.
        fill_up: Add silence after a clip that ends before its last segment, as the teacher heard it. Also return the
            calibration error, memory on, and the hours.
    """
    log_mel, size = LogMel(), model.config.chunk_samples
    found: dict[bool, list[npt.NDArray[np.float32]]] = {True: [], False: []}
    numbers: list[int] = []
    length = 0
    for recording in recordings:
        audio = shards.audio(np.array(recording, np.int64))
        clips = [torch.from_numpy(decode_clip(audio[clip], SAMPLE_RATE_HZ)[0]) for clip in recording]
        if fill_up:
            clips = [_filled(samples, segments, clip) for clip, samples in zip(recording, clips, strict=True)]
        begins = np.cumsum([0] + [len(clip) for clip in clips])
        starts: list[float] = []  # of segments, in samples
        for clip, begin in zip(recording, begins[:-1], strict=True):
            own = np.nonzero(segments.numbers == clip)[0]
            numbers += own.tolist()
            starts += (begin + segments.starts_s[own] * SAMPLE_RATE_HZ).tolist()
        samples = torch.cat(clips)
        length += len(samples)
        middles = (np.arange(-(-len(samples) // size)) + 0.5) * size
        inside = [(start <= middles) & (middles < start + segments.segment_s * SAMPLE_RATE_HZ) for start in starts]
        for memory_on, parts in found.items():
            scores = chunk_scores(model, log_mel, samples, memory_on=memory_on).numpy()
            parts.append(np.stack([scores[chunks].mean(0) for chunks in inside]))
    on, off = (np.concatenate(parts) for parts in found.values())
    labels = segments.labels(np.array(numbers, np.int64))
    figures = teacher_figures(on, off, labels) | {"recordings": len(recordings), "pieces": len(numbers)}
    if fill_up:
        figures["hours"] = round(length / SAMPLE_RATE_HZ / 3600, 3)
        figures["calibration_error"] = calibration_error(on, labels >= TRUE_SCORE)
    return figures


def _filled(samples: Tensor, segments: Segments, clip: int) -> Tensor:
    """Add silence to a clip up to the end of its last segment."""
    end_s = segments.starts_s[segments.numbers == clip].max(initial=0.0) + segments.segment_s
    return torch.nn.functional.pad(samples, (0, max(0, round(float(end_s) * SAMPLE_RATE_HZ) - len(samples))))


def calibration_error(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error of all scores of the classes with at least `TRUE_SEGMENTS[-1]` true rows.

    Shape:
        [N, 527], [N, 527] -> 0 to 1; NaN if no class has so many
    """
    classes = truth.sum(0) >= TRUE_SEGMENTS[-1]
    counts = level_counts(scores[:, classes].astype(np.float16).reshape(-1), truth[:, classes].reshape(-1))
    return calibration(counts).error


def _student(model: SAT) -> Tag:
    """Return a function that computes the mean of the chunks' scores, with memory on."""
    log_mel = LogMel()
    return lambda samples: chunk_scores(model, log_mel, samples).mean(0)


def on_everyday_sounds(tag: Tag, clips: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
    """Return the figures of `everyday` for named clips."""
    names, scores = zip(*[(name, tag(samples)) for name, samples in clips], strict=True)
    return asdict(everyday(names, torch.stack(scores).numpy()))


def curve_of(metrics: Path) -> list[dict[str, Any]]:
    """Return the validations of a training run: samples, hours, and teacher-mAP of 4 s windows."""
    found: list[dict[str, Any]] = []
    hours = 0.0
    for line in train_log.lines(metrics):
        hours = line.get("hours", hours)
        if "teacher_map_10" in line:
            kept = {key: line[key] for key in line if key.startswith("teacher_map") or key == "top_1"}
            found.append({"samples": line["seen"], "hours": hours} | kept)
    return found
