"""The outputs for a chunk: its 527 scores and, if wanted, its embedding, in one vector.

The embedding of a chunk is the vector from which a tagger's last layers compute the scores. For a SAT: the tokens after
the last block, normalised by the LayerNorm `norm`, averaged over the chunk (or the class token, where the configuration
has one); the head, `outputlayer`, reads it, and its own LayerNorm is not applied yet. So `SAT.scores` of an embedding
gives the scores of the chunk. With several grids, the embedding of a stretch is the mean of those of the chunks that
cover it.
"""

import torch
from satpipe.sat.model.config import CLASSES
from torch import Tensor


def join(scores: Tensor, embeddings: Tensor) -> Tensor:
    """Shape: scores [..., 527], embeddings [..., D] -> outputs [..., 527 + D], float32."""
    return torch.cat([scores.float(), embeddings.float()], dim=-1)


def split(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and embeddings; D is 0 where no embeddings were wanted.

    Shape:
        [..., 527 + D] -> [..., 527], [..., D]
    """
    return outputs[..., :CLASSES], outputs[..., CLASSES:]
