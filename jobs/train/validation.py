"""How true a tagger is to its teacher, or to weak labels: average precision over the clips of a validation set."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.taggers.sat import segment_scores
from torch import Tensor

TRUE_SCORE = 0.5  # a teacher's score from which a class counts as there
TRUE_PIECES = (10, 3)  # classes with as many true pieces are averaged over
Scores = npt.NDArray[np.float32]


def with_and_without_memory(model: SAT, log_mel: LogMel, waveforms: Tensor) -> list[Tensor]:
    """Mean scores of the whole chunks of pieces, memory on and off; what a full-context model says of them, twice.

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
    """Teacher-mAP, memory on and off: what the teacher gives TRUE_SCORE counts as true.

    Shape:
        [N, 527] each, N pieces
    """
    figures: dict[str, Any] = {}
    for name, scores in (("", remembering), ("_memory_off", forgetting)):
        for count in TRUE_PIECES:
            value, classes = mean_average_precision(scores, labels >= TRUE_SCORE, count)
            figures |= {f"teacher_map_{count}{name}": value, f"classes_{count}": classes}
    figures["top_1"] = float((remembering.argmax(1) == labels.argmax(1)).mean())
    return figures


def mean_average_precision(scores: Scores, truth: npt.NDArray[np.bool_], least: int) -> tuple[float, int]:
    """Average precision, mean over the classes with at least so many true rows; NaN where there is none.

    Shape:
        [N, 527], [N, 527] -> mean, number of classes
    """
    from sklearn.metrics import average_precision_score

    classes = np.nonzero(truth.sum(0) >= least)[0]
    values = [average_precision_score(truth[:, c], scores[:, c]) for c in classes]
    return (float(np.mean(values)) if values else math.nan), len(classes)
