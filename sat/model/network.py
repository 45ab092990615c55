"""The whole model: a vision transformer over log-mel patches that carries memory from chunk to chunk.

Paper sections 2 and 3. Axes: B recordings or segments, C consecutive chunks, T tokens of a chunk, M tokens of memory,
D channels, H heads, F log-mel frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from satpipe.sat.model.config import FREQUENCY_PATCHES, MEL_BANDS, MIN_ROWS, PATCH_BANDS, PATCH_FRAMES, ModelConfig
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6  # in the blocks; the LayerNorm of the head has torch's default


@dataclass
class Memory:
    """Memory of a stream: for each block, its input for the latest tokens.

    Attributes:
        blocks: One [B, M, D] tensor per block; M is at most the configuration's `memory_tokens`.
    """

    blocks: list[Tensor]

    def select(self, stream: int) -> "Memory":
        """Return the memory of one of the B streams, with B = 1."""
        return Memory([block[stream : stream + 1] for block in self.blocks])

    @staticmethod
    def stack(memories: "list[Memory]") -> "Memory":
        """Concatenate memories of equal length along B."""
        return Memory([torch.cat(blocks) for blocks in zip(*(memory.blocks for memory in memories), strict=True)])


class Attention(nn.Module):
    """Multi-head attention of a chunk's tokens over memory and the chunk (paper equations 2 and 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """Attend over `memory` [B, M, D] and `x` [B, T, D], both normalised.

        Shape:
            [B, T, D] -> [B, T, D]
        """
        q, k, v = self._split(self.qkv(x))
        if memory is not None:
            width = x.shape[-1]
            past = F.linear(memory, self.qkv.weight[width:], self.qkv.bias[width:])
            past_k, past_v = self._split(past)
            k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        return self._merge(F.scaled_dot_product_attention(q, k, v))

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """[B, T, n D] -> n tensors [B, H, T, D / H]."""
        width = self.proj.in_features
        return tuple(
            part.transpose(1, 2) for part in rows.unflatten(-1, (-1, self.heads, width // self.heads)).unbind(2)
        )

    def _merge(self, heads: Tensor) -> Tensor:
        """[B, H, T, D / H] -> [B, T, D]."""
        return self.proj(heads.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two-layer perceptron with GELU, ratio 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [..., D] -> [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """Shape: tokens [B, T, D] and memory [B, M, D] -> [B, T, D]."""
        past = None if memory is None else self.norm1(memory)
        x = x + self.attn(self.norm1(x), past)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def _positions(*shape: int) -> nn.Parameter:
    # Not normal_: on the meta device it imports torch's compiler, which takes two seconds.
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


class SAT(nn.Module):
    """Streaming Audio Transformer; with a full-context configuration the plain ViT of the paper's section 2.

    The module takes log-mel values in dB, clamped per chunk, and returns scores (sigmoid outputs) of the 527 classes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.init_bn = nn.BatchNorm1d(MEL_BANDS)  # each mel band is a channel
        self.patch_embed = nn.Conv2d(1, width, (PATCH_BANDS, PATCH_FRAMES), (PATCH_BANDS, PATCH_FRAMES))
        self.time_pos_embed = _positions(1, width, 1, config.time_positions)
        self.freq_pos_embed = _positions(1, width, FREQUENCY_PATCHES, 1)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.token_pos_embed = _positions(1, width)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]  # typed as what it contains
            Block(width, config.heads) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.outputlayer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.classes))

    def to_precision(self, dtype: torch.dtype) -> "SAT":
        """Convert this model, in place as `to` does, and return it.

        Blocks run in `dtype`; the input is still normalised, and scores are computed, in float32.
        """
        for part in (self.patch_embed, *self.blocks):
            part.to(dtype)
        for positions in self.parameters(recurse=False):
            positions.data = positions.data.to(dtype)
        return self

    def forward(self, log_mel: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """Tag one chunk of each of B streams.

        Args:
            log_mel: [B, 64, F], at least one patch of 16 frames; frames past the last whole patch are ignored.
            memory: Memory after the previous chunk; None at the start of a recording.

        Returns:
            Scores [B, 527], and the memory for the next chunk (None for a full-context model).

        Raises:
            ValueError: There are fewer than 16 frames, or more than the model has positions for.
        """
        embeddings, memory = self.embeddings(log_mel, memory)
        return self.scores(embeddings), memory

    def logits(
        self, log_mel: Tensor, memory: Memory | None = None, *, memory_gradient: bool = False
    ) -> tuple[Tensor, Memory | None]:
        """Tag a chunk as `forward` does, but return logits instead of scores; see `embeddings`."""
        embeddings, memory = self.embeddings(log_mel, memory, memory_gradient=memory_gradient)
        return self.outputlayer(embeddings), memory

    def embeddings(
        self, log_mel: Tensor, memory: Memory | None = None, *, memory_gradient: bool = False
    ) -> tuple[Tensor, Memory | None]:
        """Read a chunk as `forward` does, but return the embeddings [B, D] from which `scores` computes the scores.

        No gradient flows through the memory, as published, unless `memory_gradient` is true for every chunk.
        """
        x = self.embed(log_mel)
        tokens = self.config.memory_tokens
        kept = []
        for index, block in enumerate(self.blocks):
            past = None if memory is None else memory.blocks[index]
            if past is not None and not memory_gradient:
                past = past.detach()
            if past is not None and index == 0:
                past = past + self.memory_positions(past.shape[1]).to(past.dtype)
            # As published, a token that stays in memory for a second chunk keeps the positions added at its first use.
            seen = x if past is None else torch.cat([past, x], dim=1)
            kept.append(seen[:, -tokens:] if memory_gradient else seen[:, -tokens:].detach())
            x = block(x, past)
        return self.pool(x), Memory(kept) if tokens else None

    def embed(self, log_mel: Tensor) -> Tensor:
        """Normalise, cut into patches, embed and add positions.

        Shape:
            [B, 64, F] -> [B, T, D] with T = 4 (F // 16), frequency-major; a class token comes first
        """
        frames = log_mel.shape[-1]
        patches = frames // PATCH_FRAMES
        if not 0 < patches <= self.config.time_positions:
            raise ValueError(
                f"{self.config.name} reads {PATCH_FRAMES} to "
                f"{self.config.time_positions * PATCH_FRAMES + PATCH_FRAMES - 1} frames per chunk, not {frames}"
            )
        x = self.init_bn(log_mel)[..., : patches * PATCH_FRAMES]
        x = x.unflatten(-1, (patches, PATCH_FRAMES)).unflatten(1, (FREQUENCY_PATCHES, PATCH_BANDS))
        x = x.transpose(2, 3).flatten(3)  # [B, 4, F // 16, 16 * 16]
        x = F.linear(x.to(self.patch_embed.weight.dtype), self.patch_embed.weight.flatten(1), self.patch_embed.bias)
        positions = self.time_pos_embed[..., :patches] + self.freq_pos_embed  # [1, D, 4, F // 16]
        x = x.flatten(1, 2) + positions.flatten(2).transpose(1, 2)  # [B, T, D]
        if self.config.class_token:
            token = self.cls_token + self.token_pos_embed
            x = torch.cat([token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        return x

    def memory_positions(self, tokens: int) -> Tensor:
        """Return the position embeddings that block 0 adds to its memory, those of the last entries of the table.

        Shape:
            [tokens, D]
        """
        times = self.config.memory_tokens // FREQUENCY_PATCHES
        positions = self.time_pos_embed[..., -times:] + self.freq_pos_embed  # [1, D, 4, times]
        return positions.flatten(2)[0].T[-tokens:]

    def scores(self, embeddings: Tensor) -> Tensor:
        """Shape: [B, D] -> scores [B, 527]."""
        # The last few numbers of the last row, too, are computed by another kernel: hence at least one row is added.
        padded = F.pad(embeddings, (0, 0, 0, max(1, MIN_ROWS - len(embeddings))))
        return torch.sigmoid(self.outputlayer(padded))[: len(embeddings)]

    def pool(self, x: Tensor) -> Tensor:
        """Shape: tokens after the last block [B, T, D] -> embeddings [B, D], float32."""
        x = self.norm(x.to(self.norm.weight.dtype))
        return x[:, 0] if self.config.class_token else x.mean(1)


def allows_consecutive(config: ModelConfig) -> bool:
    """Return True if chunks can run layer by layer (`chunk_parallel`): the memory is exactly one chunk."""
    return config.streaming and config.memory_chunks == 1
