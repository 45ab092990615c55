"""Forward passes in training: two chunks of a SAT and their loss, or a whole clip with parts left out."""

from math import log

import torch
from satpipe.sat.model.config import FREQUENCY_PATCHES
from satpipe.sat.model.network import SAT, allows_consecutive
from satpipe.sat.training.two_chunks import two_chunks
from torch import Tensor
from torch.nn import functional as F


def crop_logits(model: SAT, log_mel: Tensor, dtype: torch.dtype) -> Tensor:
    """Tag crops of two chunks; no gradient flows through the memory (paper section 4.4).

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


def two_chunk_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of the mean score of two chunks and soft labels (paper section 4.4).

    Shape:
        [B, 2, 527], [B, 527] in 0 to 1 -> one number, mean over crops and classes
    """
    # log(mean of sigmoids) and log(1 - mean), without intermediate results near 0 or 1
    log_score = torch.logsumexp(F.logsigmoid(logits), dim=1) - log(2)
    log_rest = torch.logsumexp(F.logsigmoid(-logits), dim=1) - log(2)
    return -(labels * log_score + (1 - labels) * log_rest).mean()


def full_context_logits(
    model: SAT, log_mel: Tensor, generator: torch.Generator, *, patch_out: float = 0.0, drop_path: float = 0.0
) -> Tensor:
    """Tag whole clips, leaving out some of the patches and blocks (paper section 4.3).

    Args:
        model: A full-context configuration.
        log_mel: [B, 64, F].
        generator: Source of random numbers.
        patch_out: Share of the time steps, and of the frequencies, whose patches are left out (Koutini et al. 2022).
        drop_path: Probability that a clip skips the attention of the last block, and independently its perceptron; it
            rises linearly from 0 in the first block (stochastic depth, Huang et al. 2016).

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
        probability = drop_path * index / max(1, depth - 1)
        if probability:
            x = x + block.attn(block.norm1(x), None) * _stays(x, probability, generator)
            x = x + block.mlp(block.norm2(x)) * _stays(x, probability, generator)
        else:
            x = block(x, None)
    return model.outputlayer(model.pool(x))  # type: ignore[no-any-return]


def _stays(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Return the factors of a branch that each clip skips with a probability, [B, 1, 1]; their mean is 1."""
    stays = torch.rand(len(x), 1, 1, generator=generator) >= probability
    return stays.to(x) / (1 - probability)


def _some(count: int, left_out: float, generator: torch.Generator) -> Tensor:
    """Return the indices up to `count` in order, leaving out a random share of them."""
    kept = max(1, count - int(count * left_out))
    return torch.randperm(count, generator=generator)[:kept].sort().values
