"""What training the tagging models takes besides the data: how they run, start, and are averaged."""

from collections.abc import Mapping, Sequence

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.config import FREQUENCY_PATCHES
from satpipe.sat.model.network import SAT, allows_consecutive
from satpipe.sat.training.two_chunks import two_chunks
from satpipe.sat.weights.checkpoint import fit_time_positions
from torch import Tensor, nn
from torch.nn import functional as F


def crop_logits(model: SAT, log_mel: Tensor, dtype: torch.dtype) -> Tensor:
    """Tag crops of two chunks, memory without gradient (paper section 4.4).

    Shape:
        [B, 64, 2 F] -> logits [B, 2, 527] float32
    """
    if allows_consecutive(model.config) and not model.config.class_token:
        return two_chunks(model, log_mel, dtype)
    first, second = log_mel.split(model.config.chunk_frames, dim=-1)
    with torch.autocast(log_mel.device.type, dtype, enabled=dtype != torch.float32):
        logits, memory = model.logits(first)
        later, _ = model.logits(second, memory)
    return torch.stack([logits, later], dim=1).float()


def full_context_logits(
    model: SAT, log_mel: Tensor, generator: torch.Generator, *, patch_out: float = 0.0, drop_path: float = 0.0
) -> Tensor:
    """Tag whole clips with parts of the patches and of the blocks left out (paper section 4.3).

    Args:
        model: A full-context configuration.
        log_mel: [B, 64, F].
        generator: Of random numbers.
        patch_out: Share of the times, and of the frequencies, whose patches are left out (Koutini et al. 2022).
        drop_path: Probability that a clip skips the last block; earlier ones are skipped less (stochastic depth).

    Returns:
        Logits [B, 527].
    """
    x = model.embed(log_mel)
    if patch_out:
        head = int(model.config.class_token)
        times = (x.shape[1] - head) // FREQUENCY_PATCHES
        grid = torch.arange(head, x.shape[1]).view(FREQUENCY_PATCHES, times)
        grid = grid[_some(FREQUENCY_PATCHES, patch_out, generator)][:, _some(times, patch_out, generator)]
        x = torch.cat([x[:, :head], x[:, grid.flatten().to(x.device)]], dim=1)
    depth = len(model.blocks)
    for index, block in enumerate(model.blocks):
        y = block(x, None)
        probability = drop_path * index / max(1, depth - 1)
        if probability:
            stays = (torch.rand(len(x), 1, 1, generator=generator) >= probability).to(x)
            y = x + (y - x) * stays / (1 - probability)
        x = y
    return model.head_logits(x)


def _some(count: int, left_out: float, generator: torch.Generator) -> Tensor:
    """Indices in order, without a random part of them."""
    kept = max(1, count - int(count * left_out))
    return torch.randperm(count, generator=generator)[:kept].sort().values


def initialise(model: SAT) -> None:
    """Start a tagging model from nothing: scores begin near 0.01, where the labels are."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    out = model.outputlayer[1]
    assert isinstance(out, nn.Linear)
    nn.init.normal_(out.weight, std=0.01)
    nn.init.constant_(out.bias, -4.6)


def start_from(model: SAT, state: Mapping[str, Tensor], *, head: bool = True) -> list[str]:
    """Take over the weights of another model of the same width and depth; the time-position table is fitted.

    Args:
        model: What is to be trained.
        state: State dict of an MAE encoder, a full-context or a streaming model.
        head: Whether the classifier is taken over too; that of an MAE encoder was never trained.

    Returns:
        Names of the tensors that were not taken over.

    Raises:
        CheckpointError: A tensor is of another shape.
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
                f"{name} is {list(theirs.shape)} in the model to start from, {list(tensor.shape)} in "
                f"{model.config.name}: the two are of another size"
            )
        ours[name] = theirs
    model.load_state_dict(ours)
    return left


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms and positions do not."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and "pos_embed" not in name]
    others = [p for name, p in trained if not (p.ndim >= 2 and "pos_embed" not in name)]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of state dicts; counters are those of the first."""
    first = states[0]
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over clips and classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)
