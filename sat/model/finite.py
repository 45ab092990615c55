"""Scores that are not numbers: weights can be finite and still give NaN, if they are damaged or too large."""

from collections.abc import Callable

import torch
from satpipe.sat.errors import CheckpointError
from torch import Tensor, nn


def check_finite(scores: Tensor, model: nn.Module | None, place: Callable[[int], str]) -> None:
    """Check that scores are numbers, which takes microseconds.

    Args:
        scores: [C, 527]
        model: The model that computed them, if it is known.
        place: Describes a row, such as `a.wav, second 1.92`.

    Raises:
        CheckpointError: They are not; the message names the row and the tensor with the largest weight.
    """
    if torch.isfinite(scores.sum()):
        return
    row = int((~scores.isfinite().all(-1)).nonzero()[0])
    text = f"the model computes scores that are not numbers for {place(row)}"
    tensors = {} if model is None else {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    if tensors:
        largest = {name: float(tensor.abs().max()) for name, tensor in tensors.items() if tensor.numel()}
        name = max(largest, key=lambda each: largest[each])
        text += f"; its largest weight, {largest[name]:.1e}, is in {name}"
    raise CheckpointError(f"{text}: the file is damaged, or its weights are too large for this --precision")
