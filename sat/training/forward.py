"""Forward passes in training: a sequence of a SAT's chunks and its loss, or a whole clip with parts left out."""

from math import log

import torch
from satpipe.sat.model.config import FREQUENCY_PATCHES
from satpipe.sat.model.network import SAT, allows_consecutive
from satpipe.sat.training.sequences import chunk_logits
from torch import Tensor
from torch.nn import functional as F


def sequence_logits(model: SAT, log_mel: Tensor, dtype: torch.dtype, *, memory_gradient: bool = False) -> Tensor:
    """Tag sequences of N chunks.

    Args:
        model: A streaming configuration.
        log_mel: [B, 64, N F] with F the configuration's `chunk_frames`.
        dtype: Type of matrix products.
        memory_gradient: Let gradients flow through the memory; the paper does not (section 4.4).

    Returns:
        Logits [B, N, 527] float32.
    """
    if allows_consecutive(model.config) and not model.config.class_token:
        return chunk_logits(model, log_mel, dtype, memory_gradient=memory_gradient)
    memory, found = None, []
    with torch.autocast(log_mel.device.type, dtype, enabled=dtype != torch.float32):
        for chunk in log_mel.split(model.config.chunk_frames, dim=-1):
            logits, memory = model.logits(chunk, memory, memory_gradient=memory_gradient)
            found.append(logits)
    return torch.stack(found, dim=1).float()


def sequence_loss(logits: Tensor, labels: Tensor, *, sequence_weight: float = 1.0, chunk_weight: float = 0.0) -> Tensor:
    """Return the loss of sequences of N chunks against soft labels.

    Args:
        logits: [B, N, 527].
        labels: Of the sequences, [B, 527], or of the sequences and each of their chunks, [B, 1 + N, 527]; 0 to 1.
        sequence_weight: Weight of the binary cross-entropy of the mean score of the chunks (paper section 4.4).
        chunk_weight: Weight of the binary cross-entropy of each chunk's score; it needs the chunks' labels.

    Returns:
        One number, the mean over sequences and classes.
    """
    whole = labels if labels.ndim == 2 else labels[:, 0]
    # log(mean of sigmoids) and log(1 - mean), without intermediate results near 0 or 1
    chunks = log(logits.shape[1])
    log_score = torch.logsumexp(F.logsigmoid(logits), dim=1) - chunks
    log_rest = torch.logsumexp(F.logsigmoid(-logits), dim=1) - chunks
    loss = -(whole * log_score + (1 - whole) * log_rest).mean() * sequence_weight
    if chunk_weight:
        loss = loss + F.binary_cross_entropy_with_logits(logits, labels[:, 1:]) * chunk_weight
    return loss


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
