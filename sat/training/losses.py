"""Losses of the tagging models."""

from math import log

import torch
from torch import Tensor
from torch.nn import functional as F


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over clips and classes."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def two_chunk_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of the mean score of two chunks and soft labels (paper section 4.4).

    Shape:
        [B, 2, 527], [B, 527] in 0 to 1 -> one number, mean over crops and classes
    """
    # log(mean of sigmoids) and log(1 - mean), without intermediate results near 0 or 1
    log_score = torch.logsumexp(F.logsigmoid(logits), dim=1) - log(2)
    log_rest = torch.logsumexp(F.logsigmoid(-logits), dim=1) - log(2)
    return -(labels * log_score + (1 - labels) * log_rest).mean()
