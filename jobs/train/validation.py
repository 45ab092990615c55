"""Figures of a model over a validation set: average precision against a teacher or weak labels, or the MAE's loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from satpipe.jobs.train.batches import CLIP_SAMPLES
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import Group
from satpipe.jobs.train.objective import Objective
from satpipe.pipeline.training_data.feed import Examples, Indices, in_order, labelled_segments, whole_clips
from satpipe.pipeline.training_data.shards import Shards
from satpipe.pipeline.training_data.teachers import Segments
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.taggers.sat import segment_scores
from torch import Tensor

TRUE_SCORE = 0.5  # a class is true if its teacher's score is at least this
TRUE_SEGMENTS = (10, 3)  # minimum number of true segments of the classes that are averaged over
BATCH = 32
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Validation:
    """A validation set: clips with weak labels, or segments that a teacher labelled.

    Attributes:
        samples: Length of an example at 16 kHz.
        group: The workers that share the work.
    """

    examples: Examples
    samples: int
    by_teacher: bool
    group: Group

    def of(self, objective: Objective) -> dict[str, Any]:
        """Return the metrics of the model in training."""
        return self.measure(objective.tagger, objective.log_mel)

    def measure(self, model: SAT, log_mel: LogMel) -> dict[str, Any]:
        """Return the metrics of a model, among them `map`, by which checkpoints are ranked.

        Against weak labels, `map` is the mAP over the classes that occur; against a teacher, the teacher-mAP of
        `teacher_figures` over the most frequent classes, or NaN if no class is frequent enough.
        """
        if not self.by_teacher:
            (scores,), labels = self._scores(lambda waveforms, ends: [clip_scores(model, log_mel, waveforms, ends)])
            return {"map": mean_average_precision(scores, labels >= TRUE_SCORE, 1)[0]}
        (on, off), labels = self._scores(lambda waveforms, _: with_and_without_memory(model, log_mel, waveforms))
        metrics = teacher_figures(on, off, labels)
        known = (metrics[f"teacher_map_{count}"] for count in TRUE_SEGMENTS)
        return metrics | {"map": next((value for value in known if not math.isnan(value)), math.nan)}

    def _scores(self, tag: Callable[[Tensor, Indices], list[Tensor]]) -> tuple[list[Scores], Scores]:
        """Return the scores of all examples, of which each worker tags its share, and their labels.

        Args:
            tag: Called with waveforms, padded with silence to one length, and the lengths without it, in samples.
        """
        examples, group, parts = self.examples, self.group, []
        ends = np.rint(examples.shards.durations_s[examples.clips] * SAMPLE_RATE_HZ).astype(np.int64)
        with torch.inference_mode():
            for numbers, batch in in_order(examples, self.samples, BATCH, group.rank, group.world):
                scores = [part.cpu().numpy() for part in tag(batch.inputs.to(group.device), ends[numbers])]
                parts.append((numbers, batch.labels.numpy(), *scores))  # type: ignore[union-attr]  # all are labelled
        every, labels, *found = (np.concatenate(column) for column in zip(*group.gather(parts), strict=True))
        order = np.argsort(every)
        return [part[order] for part in found], labels[order]


@dataclass(frozen=True)
class Reconstruction:
    """A validation set of clips for stage mae."""

    examples: Examples
    group: Group

    def of(self, objective: Objective) -> dict[str, float]:
        """Return the mean loss of the autoencoder, with the same masks each time."""
        group, losses = self.group, []
        with torch.inference_mode():
            for numbers, batch in in_order(self.examples, CLIP_SAMPLES, BATCH, group.rank, group.world):
                rng = np.random.default_rng(int(numbers[0]))
                losses.append((len(numbers), float(objective(batch.inputs.to(group.device), None, rng))))
        counts, means = zip(*group.gather(losses), strict=True)
        return {"validation_loss": float(np.average(means, weights=counts))}


def make_validation(settings: TrainConfig, group: Group) -> Validation | Reconstruction | None:
    """Return the validation set of a run, if it has one."""
    if not settings.validation:
        return None
    shards = Shards(settings.validation)
    if settings.stage == "mae":
        return Reconstruction(whole_clips(shards, labelled=False), group)
    if settings.validation_labels:
        return taught(shards, Segments(settings.validation_labels, shards), group)
    return Validation(whole_clips(shards, labelled=True), CLIP_SAMPLES, False, group)


def taught(shards: Shards, segments: Segments, group: Group) -> Validation:
    """Return a validation set that a teacher has labelled."""
    samples = round(segments.segment_s * SAMPLE_RATE_HZ)
    return Validation(labelled_segments(shards, segments), samples, True, group)


def clip_scores(model: SAT, log_mel: LogMel, waveforms: Tensor, ends: Indices) -> Tensor:
    """Return the scores of clips of several lengths, the same as `satpipe evaluate` computes from their tables.

    Shape:
        [B, n] samples at 16 kHz, of which row i ends at `ends[i]` -> [B, 527]
    """
    scores = waveforms.new_empty(len(waveforms), model.config.classes)
    for end in np.unique(ends).tolist():
        rows = torch.from_numpy(np.flatnonzero(ends == end)).to(waveforms.device)
        scores[rows] = segment_scores(model, log_mel, waveforms[rows, :end])
    return scores


def with_and_without_memory(model: SAT, log_mel: LogMel, waveforms: Tensor) -> list[Tensor]:
    """Return the mean scores over the complete chunks of segments, memory on and off; equal for a full-context model.

    Shape:
        [B, n] samples at 16 kHz -> two of [B, 527]
    """
    if not model.config.streaming:
        return [segment_scores(model, log_mel, waveforms)] * 2
    size = model.config.chunk_frames
    frames = log_mel(waveforms)
    memory, remembering, forgetting = None, [], []
    for chunk in frames[..., : frames.shape[-1] // size * size].split(size, -1):
        clamped = clamp_dynamic_range(chunk)
        score, after = model(clamped, memory)
        remembering.append(score)
        forgetting.append(score if memory is None else model(clamped)[0])
        memory = after
    return [torch.stack(scores).mean(0) for scores in (remembering, forgetting)]


def teacher_figures(remembering: Scores, forgetting: Scores, labels: Scores) -> dict[str, Any]:
    """Return the teacher-mAP with memory on and off: a class is true if the teacher's score is at least TRUE_SCORE.

    Shape:
        [N, 527] each, N segments
    """
    figures: dict[str, Any] = {}
    for name, scores in (("", remembering), ("_memory_off", forgetting)):
        for count in TRUE_SEGMENTS:
            value, classes = mean_average_precision(scores, labels >= TRUE_SCORE, count)
            figures |= {f"teacher_map_{count}{name}": value, f"classes_{count}": classes}
    figures["top_1"] = float((remembering.argmax(1) == labels.argmax(1)).mean())
    return figures


def mean_average_precision(scores: Scores, truth: npt.NDArray[np.bool_], minimum: int) -> tuple[float, int]:
    """Return the mean average precision over the classes with at least `minimum` true rows; NaN if no class has.

    Shape:
        [N, 527], [N, 527] -> mean, number of classes
    """
    from sklearn.metrics import average_precision_score

    classes = np.nonzero(truth.sum(0) >= minimum)[0]
    values = [average_precision_score(truth[:, c], scores[:, c]) for c in classes]
    return (float(np.mean(values)) if values else math.nan), len(classes)
