"""Consecutive chunks of a recording in one pass, layer by layer: the fast way to run a SAT.

No block has to wait for the end of an earlier chunk: the memory of block l for chunk t is the input of block l for
chunk t - 1, which is computed in the same pass. The result equals that of calls chunk by chunk, up to rounding. For
inference only: the tokens of all chunks are in one buffer in order of time, after the memory of the first chunk, and
each block adds to them in place. Blocks share buffers for large intermediate results, since allocation costs time.
"""

from collections.abc import Sequence

import torch
from satpipe.sat.model.network import SAT, Block, Memory, allows_consecutive
from torch import Tensor, nn
from torch.nn import functional as F


@torch.inference_mode()
def consecutive(
    model: SAT,
    log_mel: Tensor,
    memory: Memory | None = None,
    first: Sequence[int] = (),
    keep: Sequence[int] = (-1,),
) -> tuple[Tensor, Memory]:
    """Read C consecutive whole chunks.

    Args:
        model: In evaluation mode.
        log_mel: [C, 64, F] with F the configuration's `chunk_frames`.
        memory: Memory before the first chunk (B = 1); None if it is empty.
        first: Chunks that start another recording and have an empty memory.
        keep: The K chunks after which memory is returned; by default the last one.

    Returns:
        Embeddings [C, D], of which `SAT.scores` gives the scores, and the memory after each chunk of `keep` (B = K).

    Raises:
        ValueError: The configuration does not allow it (`allows_consecutive`), or the chunks are not whole.
    """
    config = model.config
    if not allows_consecutive(config):
        raise ValueError(f"{config.name} cannot run layer by layer: its memory is not one chunk")
    if log_mel.shape[-1] != config.chunk_frames:
        raise ValueError(f"{log_mel.shape[-1]} frames are not a whole chunk of {config.chunk_frames}")
    embedded = model.embed(log_mel)
    empty = sorted({*first, 0} if memory is None else {*first})
    stream = _Stream(embedded, config.memory_tokens)
    mask = _mask(stream, empty) if empty else None
    kept = []
    for index, block in enumerate(model.blocks):
        kept.append(stream.chunks[list(keep), -stream.past :])
        stream.rows[: stream.past] = 0.0 if memory is None else memory.blocks[index][0]
        # Block 0 adds positions to its memory a second time, so its memory is not the previous chunk itself.
        positions = model.memory_positions(stream.past) if index == 0 else None
        stream.add(block, positions, mask)
    return model.pool(stream.chunks), Memory(kept)


class _Stream:
    """The tokens of C chunks after M tokens of memory, and the buffers to process them.

    Attributes:
        past: M, the number of memory tokens.
        rows: All tokens, oldest first, [M + C T, D].
        chunks: View of the tokens after the memory as [C, T, D].
    """

    def __init__(self, chunks: Tensor, past: int) -> None:
        count, tokens, width = chunks.shape
        self.past = past
        self.rows = chunks.new_empty(past + count * tokens, width)
        self._tokens = self.rows[past:]  # [C T, D]
        self.chunks = self._tokens.view(count, tokens, width)
        self.chunks.copy_(chunks)
        self._qkv = chunks.new_empty(len(self.rows), 3 * width)
        self._hidden = chunks.new_empty(count * tokens, 4 * width)

    def add(self, block: Block, positions: Tensor | None, mask: Tensor | None) -> None:
        """Run a block in place. `positions` [M, D] are added to its memory."""
        q, k, v = self._windows(block) if positions is None else self._with_positions(block, positions)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [C, H, T or M + T, D / H]
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        _add_linear(self._tokens, heads.transpose(1, 2).reshape(self._tokens.shape), block.attn.proj)
        hidden = _linear(block.norm2(self._tokens), block.mlp.fc1, self._hidden)
        _add_linear(self._tokens, torch.ops.aten.gelu_(hidden), block.mlp.fc2)

    def _windows(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [C, T, H, D / H], keys and values [C, M + T, H, D / H].

        A chunk attends to one window of the rows, the previous chunk and itself; windows overlap without copies.
        """
        count, tokens, width = self.chunks.shape
        qkv = _linear(block.norm1(self.rows), block.attn.qkv, self._qkv)
        head = width // block.attn.heads
        window = (count, self.past + tokens, block.attn.heads, head)
        strides = (tokens * 3 * width, 3 * width, head, 1)
        q = qkv[self.past :, :width].view(count, tokens, block.attn.heads, head)
        return q, qkv.as_strided(window, strides, width), qkv.as_strided(window, strides, 2 * width)

    def _with_positions(self, block: Block, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same as `_windows`, with a separate memory for each chunk."""
        memory = torch.cat([self.rows[None, : self.past], self.chunks[:-1, -self.past :]]) + positions  # [C, M, D]
        rows = block.attn.qkv(block.norm1(torch.cat([memory, self.chunks], dim=1)))  # [C, M + T, 3 D]
        q, k, v = rows.unflatten(-1, (3, block.attn.heads, -1)).unbind(2)
        return q[:, self.past :], k, v


def _mask(stream: _Stream, empty: Sequence[int]) -> Tensor:
    """Return the attention mask, boolean [C, 1, T, M + T], that hides the memory of the `empty` chunks."""
    count, tokens, _ = stream.chunks.shape
    mask = torch.ones(count, 1, tokens, stream.past + tokens, dtype=torch.bool, device=stream.rows.device)
    mask[list(empty), :, :, : stream.past] = False
    return mask


def _linear(x: Tensor, layer: nn.Linear, out: Tensor) -> Tensor:
    return torch.addmm(layer.bias, x, layer.weight.T, out=out)


def _add_linear(x: Tensor, y: Tensor, layer: nn.Linear) -> None:
    """Add the output of the layer for `y` to `x`."""
    if x.dtype == torch.float32:
        x.addmm_(y, layer.weight.T).add_(layer.bias)
    else:
        x.add_(layer(y))  # rounds the large values of `x` once instead of twice
