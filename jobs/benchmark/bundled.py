"""`satpipe benchmark bundled`: quality of the bundled model on validation data and held-out sounds, as JSON."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from satpipe.jobs.benchmark.common import Say
from satpipe.jobs.benchmark.everyday import categories, category_of, everyday
from satpipe.jobs.options.measure import BundledFiguresOptions
from satpipe.jobs.train import log as train_log
from satpipe.jobs.train.bundled import Corpus
from satpipe.jobs.train.group import Group
from satpipe.jobs.train.validation import taught, teacher_figures
from satpipe.pipeline.training_data.shards import Shards, decode_clip
from satpipe.pipeline.training_data.teachers import Segments, load_teacher
from satpipe.pipeline.training_data.views import resample
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.weights.hub import BUNDLED_CONFIGS
from satpipe.sat.weights.registry import load_checkpoint
from torch import Tensor

Tag = Callable[[Tensor], Tensor]
"""Maps one recording, samples at 16 kHz [n], to scores, [527]."""


@torch.inference_mode()
def benchmark(corpus: Corpus, options: BundledFiguresOptions, known: dict[str, Any], say: Say) -> dict[str, Any]:
    """Measure the bundled model and its teacher.

    Args:
        corpus: The corpus that the model was trained on.
        options: Other options.
        known: Figures of an earlier measurement; those of models that are not measured now are kept.
        say: Called with the name of each measurement before it starts.

    Raises:
        ConfigError: A part of the corpora or of the training run is missing.
    """
    training = options.training
    Corpus(options.extra).prepare("held-out", training / "held-out")
    sets = {"validation": Shards(training / "validation"), "held_out": Shards(training / "held-out")}
    segments = Segments(training / "validation-labels", sets["validation"])
    recordings = joined(corpus, sets["validation"])
    models = {name: name for name in BUNDLED_CONFIGS} | ({"before": options.before} if options.before else {})
    figures: dict[str, Any] = {"models": dict(known.get("models", {}))}
    for name, weights in models.items():
        say(name)
        model = load_checkpoint(weights).model()
        figures["models"][name] = {
            "pieces": taught(sets["validation"], segments, Group()).measure(model, LogMel()),
            "long": on_long_recordings(model, sets["validation"], segments, recordings),
            **{part: on_everyday_sounds(_student(model), clips_with_category(sets[part])) for part in sets},
        }
        del figures["models"][name]["pieces"]["map"]
    say("the teacher")
    teacher = load_teacher(options.teacher)

    def teach(samples: Tensor) -> Tensor:
        return teacher.scores(resample(samples[None], teacher.rate_hz))[0]

    figures["teacher"] = {part: on_everyday_sounds(teach, clips_with_category(sets[part])) for part in sets}
    return figures | {"curve": curve_of(training / "run" / train_log.METRICS)}


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
    size = model.config.chunk_samples
    filled = torch.nn.functional.pad(samples, (0, -len(samples) % size))
    memory, scores = None, []
    for frames in log_mel(filled[None])[..., : len(filled) // 160].split(model.config.chunk_frames, -1):
        score, after = model(clamp_dynamic_range(frames), memory)
        memory = after if memory_on else None
        scores.append(score)
    return torch.cat(scores)


def joined(corpus: Corpus, shards: Shards) -> list[list[int]]:
    """Return the numbers of the clips of each recording with several clips, in order."""
    rows = [row for row in corpus.rows("validation") if row["path"] in shards.by_name]
    origins: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row in rows:
        place = (float(row["start_s"]), shards.by_name[row["path"]])
        origins.setdefault((row["source"], row["origin"]), []).append(place)
    return [[number for _, number in sorted(clips)] for clips in origins.values() if len(clips) > 1]


def on_long_recordings(model: SAT, shards: Shards, segments: Segments, recordings: list[list[int]]) -> dict[str, Any]:
    """Return the teacher-mAP over the segments of long recordings, each read from start to end, memory on and off.

    A segment's score is the mean of the chunks whose middle is in it.
    """
    log_mel, size = LogMel(), model.config.chunk_samples
    found: dict[bool, list[npt.NDArray[np.float32]]] = {True: [], False: []}
    numbers: list[int] = []
    for recording in recordings:
        audio = shards.audio(np.array(recording, np.int64))
        clips = [torch.from_numpy(decode_clip(audio[clip], SAMPLE_RATE_HZ)[0]) for clip in recording]
        begins = np.cumsum([0] + [len(clip) for clip in clips])
        starts: list[float] = []  # of segments, in samples
        for clip, begin in zip(recording, begins[:-1], strict=True):
            own = np.nonzero(segments.numbers == clip)[0]
            numbers += own.tolist()
            starts += (begin + segments.starts_s[own] * SAMPLE_RATE_HZ).tolist()
        samples = torch.cat(clips)
        middles = (np.arange(-(-len(samples) // size)) + 0.5) * size
        inside = [(start <= middles) & (middles < start + segments.segment_s * SAMPLE_RATE_HZ) for start in starts]
        for memory_on, parts in found.items():
            scores = chunk_scores(model, log_mel, samples, memory_on=memory_on).numpy()
            parts.append(np.stack([scores[chunks].mean(0) for chunks in inside]))
    on, off = (np.concatenate(parts) for parts in found.values())
    return teacher_figures(on, off, segments.labels(np.array(numbers, np.int64))) | {
        "recordings": len(recordings),
        "pieces": len(numbers),
    }


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
