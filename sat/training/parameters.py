"""A model's parameters in training: initial values, groups for the optimiser, averages."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.network import SAT
from satpipe.sat.weights.published import fit_time_positions
from torch import Tensor, nn

Initialisation = Literal["normal", "xavier"]
INITIAL_STD = 0.02


def initialise(module: nn.Module, kind: Initialisation = "normal") -> None:
    """Set the random initial weights of a SAT or an autoencoder.

    Args:
        module: The module; normalisation keeps its initial values.
        kind: "normal": weights and positions with standard deviation 0.02 and biases 0; "xavier": weights by the size
            of their layer (Glorot and Bengio 2010), and a classifier whose scores begin near 0.01, which is about the
            mean of the labels.
    """
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif kind == "normal" and parameter.ndim >= 2:
            nn.init.normal_(parameter, std=INITIAL_STD)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
    if kind == "xavier" and isinstance(module, SAT):
        out: Any = module.outputlayer[1]
        nn.init.normal_(out.weight, std=0.01)
        nn.init.constant_(out.bias, -4.6)


def start_from(model: SAT, state: Mapping[str, Tensor], *, head: bool = True) -> list[str]:
    """Copy the weights of another model of the same width and depth; the time-position table is fitted.

    Args:
        model: The model to train.
        state: State dict of an MAE encoder, a full-context or a streaming model.
        head: Also copy the classifier; that of an MAE encoder is untrained.

    Returns:
        Names of the tensors that were not copied.

    Raises:
        CheckpointError: A tensor has another shape.
    """
    ours = model.state_dict()
    left = []
    for name, tensor in ours.items():
        if name not in state or (not head and name.startswith("outputlayer")):
            left.append(name)
            continue
        theirs = state[name]
        if name == "time_pos_embed":
            theirs = fit_time_positions(theirs, tensor.shape[-1])
        if theirs.shape != tensor.shape:
            raise CheckpointError(
                f"the initial weights do not fit {model.config.name}: {name} is {list(theirs.shape)} instead of "
                f"{list(tensor.shape)}"
            )
        ours[name] = theirs
    model.load_state_dict(ours)
    return left


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return the optimiser's parameter groups: matrices with weight decay; biases, norms and positions without."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and "pos_embed" not in name]
    others = [p for name, p in trained if p.ndim < 2 or "pos_embed" in name]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of state dicts; integer counters are those of the first."""
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }
