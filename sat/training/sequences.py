"""The SAT training step: consecutive chunks of many sequences at once (paper section 4.4, which has two chunks).

A plain loop runs the model once per chunk and lets autograd differentiate attention. Here all chunks go through a block
together, since the memory of a block for a chunk is that block's input for the chunk before, and the parts of a block
are autograd functions with their own backward pass. The gradients are those of the loop. As in the paper, none flows
into the memory unless this is asked for, but the weights that read it receive theirs. Matrices are cast once per step
from the float32 parameters, without autocast and without a second copy of the parameters.

Axes: B sequences, N chunks of a sequence, T tokens of a chunk, D channels, H heads. Attention runs in windows. The
first two chunks are one window of 2 T queries, with a mask; each later chunk is a window of T queries, whose keys are
those of the chunk before and its own.
"""

from typing import Any

import torch
from satpipe.sat.model.network import NORM_EPS, SAT, Block, allows_consecutive
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def chunk_logits(
    model: SAT, log_mel: Tensor, dtype: torch.dtype = torch.float32, *, memory_gradient: bool = False
) -> Tensor:
    """Tag sequences of chunks: the first chunk has no memory; the memory of each later one is the chunk before.

    Args:
        model: A streaming configuration whose memory is one chunk; its parameters are float32.
        log_mel: [B, 64, N F] with N at least 2 and F the configuration's `chunk_frames`, dB.
        dtype: Type of matrix products, such as bfloat16.
        memory_gradient: Let gradients flow through the memory into the chunk before.

    Returns:
        Logits of all chunks, [B, N, 527] float32.

    Raises:
        ValueError: The memory spans more than one chunk, the model has a class token, or the number of frames is wrong.
    """
    config = model.config
    if not allows_consecutive(config) or config.class_token:
        raise ValueError(f"{config.name} cannot be trained on several chunks at once")
    count, rest = divmod(log_mel.shape[-1], config.chunk_frames)
    if rest or count < 2:
        raise ValueError(f"{log_mel.shape[-1]} frames are not two or more chunks of {config.chunk_frames}")
    tokens, size = config.chunk_tokens, (count, config.chunk_frames)
    chunks = log_mel.unflatten(-1, size).transpose(1, 2).flatten(0, 1)  # [B N, 64, F]
    with torch.autocast(log_mel.device.type, dtype, enabled=dtype != torch.float32):
        x = model.embed(chunks).view(len(log_mel), count * tokens, config.width).to(dtype)
    for index, block in enumerate(model.blocks):
        memory = None
        if index == 0:
            # Block 0 adds positions to its memory a second time, so its memory is not the chunk before itself.
            past = x[:, :-tokens] if memory_gradient else x[:, :-tokens].detach()
            memory = past + model.memory_positions(tokens).to(dtype).repeat(count - 1, 1)
        x = x + _attention(block, x, memory, tokens, memory_gradient)
        x = x + _Mlp.apply(  # type: ignore[no-untyped-call]
            x, block.norm2.weight, block.norm2.bias,
            block.mlp.fc1.weight, block.mlp.fc1.bias, block.mlp.fc2.weight, block.mlp.fc2.bias,
        )  # fmt: skip
    x = F.layer_norm(x, (config.width,), model.norm.weight.to(dtype), model.norm.bias.to(dtype), NORM_EPS)
    pooled = x.unflatten(1, (count, tokens)).mean(2).float()
    return model.outputlayer(pooled)  # type: ignore[no-any-return]


def _attention(block: Block, x: Tensor, memory: Tensor | None, tokens: int, memory_gradient: bool) -> Tensor:
    attn, norm = block.attn, block.norm1
    mixed = _Attention.apply(  # type: ignore[no-untyped-call]
        x, memory, norm.weight, norm.bias, attn.qkv.weight, attn.qkv.bias, attn.heads, tokens, memory_gradient
    )
    return F.linear(mixed, attn.proj.weight.to(x.dtype), attn.proj.bias.to(x.dtype))


class _Folded:
    """A LayerNorm's scale and shift, folded into the linear layer that follows it.

    With n = (x - mean) / deviation, the layer's output is n W' + b', where W' = W diag(scale) and b' = W shift + b.
    """

    def __init__(self, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        self.weight = (weight * scale).to(dtype)
        self.bias = torch.addmv(bias, weight, shift).to(dtype)

    @staticmethod
    def gradients(
        scale: Tensor, shift: Tensor, weight: Tensor, g_folded: Tensor, g_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of scale, shift, W and b, given those of W' and b'."""
        g_folded, g_bias = g_folded.to(weight.dtype), g_bias.to(weight.dtype)
        g_weight = torch.addr(g_folded * scale, g_bias, shift)
        return (weight * g_folded).sum(0), weight.T @ g_bias, g_weight, g_bias


class _Attention(torch.autograd.Function):
    """LayerNorm, projection to queries, keys and values, and attention of all chunks; no output projection."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, memory: Tensor | None, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor,
        heads: int, tokens: int, memory_gradient: bool,
    ) -> Tensor:  # fmt: skip
        width = x.shape[-1]
        # The product yields queries already divided by the square root of their length.
        rows = _row_factors(weight, heads)
        folded = _Folded(scale, shift, weight * rows, bias * rows[:, 0], x.dtype)
        n, mean, rstd = torch.native_layer_norm(x, (width,), None, None, NORM_EPS)
        qkv = F.linear(n, folded.weight, folded.bias)
        of_memory: tuple[Tensor | None, ...] = (None, None, None)
        past = None
        if memory is not None:
            of_memory = torch.native_layer_norm(memory, (width,), None, None, NORM_EPS)
            past = F.linear(of_memory[0], folded.weight[width:], folded.bias[width:])
        windows = [_first_window(qkv, past, heads, tokens)]
        if x.shape[1] > 2 * tokens:
            windows.append(_later_windows(qkv, past, heads, tokens))
        hidden = _hidden(tokens, windows[0][1].shape[1], x)
        mixed: list[Tensor] = []
        saved: list[Tensor] = []
        for q, k, v in windows:
            logits = torch.bmm(q, k.mT) if saved else torch.baddbmm(hidden, q, k.mT)
            weights = torch.softmax(logits, -1)
            mixed.append(_from_heads(torch.bmm(weights, v)[None], len(x), heads))
            saved += [q, k, v, weights]
        ctx.save_for_backward(
            x, mean, rstd, n, memory, *of_memory, scale, shift, weight, folded.weight, *saved
        )  # fmt: skip
        ctx.heads, ctx.tokens, ctx.memory_gradient = heads, tokens, memory_gradient
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
        (
            x, mean, rstd, n, memory, n_memory, mean_memory, rstd_memory, scale, shift, weight, folded, *saved,
        ) = ctx.saved_tensors  # fmt: skip
        sequences, _, width = x.shape
        heads, tokens = ctx.heads, ctx.tokens
        first = _FirstWindow(g_out[:, : 2 * tokens], saved[:4], sequences, heads, tokens)
        g_rows, g_past = first.rows, first.past
        if len(saved) > 4:
            later_rows, later_past = _later_gradients(g_out[:, 2 * tokens :], saved[4:], sequences, heads, tokens)
            g_rows = torch.cat([g_rows, later_rows], 1)  # [B, N T, 3 D]
            g_past = torch.cat([g_past, later_past], 1)
        own = None
        if memory is None:
            # The gradient of the weights includes the use of each chunk as memory; that of x only with a gradient
            # through the memory. `g_rows` already includes the use of the first chunk.
            if not ctx.memory_gradient:
                own = torch.cat([first.own(), g_rows[:, tokens:-tokens, width:]], 1)
            g_rows[:, tokens:-tokens, width:] += g_past
        g_folded, g_bias = _weight_gradient(g_rows, n), g_rows.flatten(0, 1).sum(0)
        g_memory = None
        if own is not None:
            g_rows[:, :-tokens, width:] = own
        if memory is not None:
            g_folded[width:] += _weight_gradient(g_past, n_memory)
            g_bias[width:] += g_past.flatten(0, 1).sum(0)
            g_memory = torch.ops.aten.native_layer_norm_backward(
                g_past @ folded[width:], memory, (width,), mean_memory, rstd_memory, None, None, (True, False, False)
            )[0]
        g_x = torch.ops.aten.native_layer_norm_backward(
            g_rows @ folded, x, (width,), mean, rstd, None, None, (True, False, False)
        )[0]
        rows = _row_factors(weight, heads)
        g_scale, g_shift, g_weight, g_bias = _Folded.gradients(scale, shift, weight * rows, g_folded, g_bias)
        return g_x, g_memory, g_scale, g_shift, g_weight * rows, g_bias * rows[:, 0], None, None, None


def _first_window(qkv: Tensor, past: Tensor | None, heads: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of the first two chunks; those of the second one's memory come first.

    Shape:
        [B, N T, 3 D] and [B, (N - 1) T, 2 D] or None -> [B H, 2 T, D / H], [B H, 2 T or 3 T, D / H] twice
    """
    q, k, v = _to_heads(qkv[:, None, : 2 * tokens], 3, heads)
    if past is not None:
        past_k, past_v = _to_heads(past[:, None, :tokens], 2, heads)
        k, v = torch.cat([past_k, k], 1), torch.cat([past_v, v], 1)
    return q, k, v


def _later_windows(qkv: Tensor, past: Tensor | None, heads: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of each chunk from the third one on; those of its memory come first.

    Shape:
        [B, N T, 3 D] and [B, (N - 1) T, 2 D] or None -> [B (N - 2) H, T, D / H], [B (N - 2) H, 2 T, D / H] twice
    """
    width = qkv.shape[-1] // 3
    (q,) = _to_heads(qkv[:, 2 * tokens :, :width].unflatten(1, (-1, tokens)), 1, heads)
    if past is None:
        windows = qkv[:, tokens:, width:].unfold(1, 2 * tokens, tokens).mT  # [B, N - 2, 2 T, 2 D], overlapping
    else:
        own = qkv[:, 2 * tokens :, width:].unflatten(1, (-1, tokens))
        windows = torch.cat([past[:, tokens:].unflatten(1, (-1, tokens)), own], 2)
    k, v = _to_heads(windows, 2, heads)
    return q, k, v


class _FirstWindow:
    """Gradients of the first two chunks.

    Attributes:
        rows: Of queries, keys and values, [B, 2 T, 3 D]; those of the first chunk include its use as memory, unless the
            memory is separate.
        past: Of keys and values of a separate memory, [B, T, 2 D]; without one, [B, 0, 2 D].
    """

    def __init__(self, g_out: Tensor, saved: list[Tensor], sequences: int, heads: int, tokens: int) -> None:
        q, k, v, weights = saved
        self._q, self._weights, self._place = q, weights, (sequences, heads, tokens)
        (self._g,) = _to_heads(g_out[:, None], 1, heads)
        self._g_logits = g_logits = _logit_gradient(self._g, v, weights)
        past = k.shape[1] - 2 * tokens  # 0, or the tokens of a separate memory
        if past:
            g_k, g_v = torch.bmm(g_logits.mT, q), torch.bmm(weights.mT, self._g)
            self.past = _from_heads(torch.stack([g_k[:, :past], g_v[:, :past]]), sequences, heads)
            g_qkv = torch.stack([torch.bmm(g_logits, k), g_k[:, past:], g_v[:, past:]])
        else:
            self.past = g_out.new_empty(sequences, 0, 2 * g_out.shape[-1])
            g_qkv = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
            torch.bmm(g_logits, k, out=g_qkv[0])
            torch.bmm(g_logits.mT, q, out=g_qkv[1])
            torch.bmm(weights.mT, self._g, out=g_qkv[2])
        self.rows = _from_heads(g_qkv, sequences, heads)

    def own(self) -> Tensor:
        """Return the gradients of keys and values of the first chunk without its use as memory, [B, T, 2 D]."""
        sequences, heads, tokens = self._place
        return _from_heads(
            torch.stack([
                torch.bmm(self._g_logits[:, :tokens, :tokens].mT, self._q[:, :tokens]),
                torch.bmm(self._weights[:, :tokens, :tokens].mT, self._g[:, :tokens]),
            ]),
            sequences, heads,
        )  # fmt: skip


def _later_gradients(
    g_out: Tensor, saved: list[Tensor], sequences: int, heads: int, tokens: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries, keys and values of the chunks from the third one on, and of their memory.

    Shape:
        [B, (N - 2) T, D] -> [B, (N - 2) T, 3 D], [B, (N - 2) T, 2 D]
    """
    q, k, v, weights = saved
    (g,) = _to_heads(g_out.unflatten(1, (-1, tokens)), 1, heads)
    g_logits = _logit_gradient(g, v, weights)
    g_k, g_v = torch.bmm(g_logits.mT, q), torch.bmm(weights.mT, g)
    rows = torch.stack([torch.bmm(g_logits, k), g_k[:, tokens:], g_v[:, tokens:]])
    past = torch.stack([g_k[:, :tokens], g_v[:, :tokens]])
    return _from_heads(rows, sequences, heads), _from_heads(past, sequences, heads)


def _logit_gradient(g: Tensor, v: Tensor, weights: Tensor) -> Tensor:
    gradient: Tensor = torch.ops.aten._softmax_backward_data(torch.bmm(g, v.mT), weights, -1, g.dtype)
    return gradient


def _row_factors(weight: Tensor, heads: int) -> Tensor:
    """Return the factor of each row of the projection to queries, keys and values, [3 D, 1]."""
    width = weight.shape[1]
    rows = weight.new_ones(3 * width, 1)
    rows[:width] = (width // heads) ** -0.5
    return rows


def _hidden(tokens: int, keys: int, like: Tensor) -> Tensor:
    """Return the mask added to the attention logits: -inf for the keys that a chunk does not attend to.

    Shape:
        [1, 2 tokens, keys]; the keys are those of the separate memory, if any, then those of both chunks
    """
    past = keys - 2 * tokens
    hidden = like.new_zeros(1, 2 * tokens, keys)
    hidden[:, :tokens, :past] = -torch.inf  # the first chunk has no memory
    hidden[:, :tokens, past + tokens :] = -torch.inf
    if past:
        hidden[:, tokens:, past : past + tokens] = -torch.inf  # the second chunk reads the memory instead
    return hidden


class _Mlp(torch.autograd.Function):
    """LayerNorm, widening, GELU, narrowing."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        folded = _Folded(scale, shift, weight, bias, x.dtype)
        n, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, NORM_EPS)
        h = F.linear(n, folded.weight, folded.bias)
        a = F.gelu(h)
        narrow = weight2.to(x.dtype)
        ctx.save_for_backward(x, mean, rstd, n, h, a, scale, shift, weight, folded.weight, narrow)
        return F.linear(a, narrow, bias2.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        x, mean, rstd, n, h, a, scale, shift, weight, folded, narrow = ctx.saved_tensors
        g_h = torch.ops.aten.gelu_backward(g @ narrow, h)
        g_x = torch.ops.aten.native_layer_norm_backward(
            g_h @ folded, x, x.shape[-1:], mean, rstd, None, None, (True, False, False)
        )[0]
        g_weight2, g_bias2 = _weight_gradient(g, a), g.flatten(0, 1).sum(0)
        g_folded, g_bias = _weight_gradient(g_h, n), g_h.flatten(0, 1).sum(0)
        return (
            g_x,
            *_Folded.gradients(scale, shift, weight, g_folded, g_bias),
            g_weight2.to(weight.dtype),
            g_bias2.to(weight.dtype),
        )


def _weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """Shape: [B, T, N], [B, T, K] -> [N, K]."""
    gradient: Tensor = g.flatten(0, 1).mT @ x.flatten(0, 1)
    return gradient


def _to_heads(rows: Tensor, parts: int, heads: int) -> Tensor:
    """[B, W, T, parts D] -> [parts, B W H, T, D / H], contiguous, with W windows."""
    by_head: Tensor = rows.unflatten(-1, (parts, heads, -1)).permute(3, 0, 1, 4, 2, 5)
    return by_head.reshape(parts, -1, *by_head.shape[-2:])


def _from_heads(parts: Tensor, sequences: int, heads: int) -> Tensor:
    """[parts, B W H, T, D / H] -> [B, W T, parts D], contiguous, with W windows."""
    by_window: Tensor = parts.unflatten(1, (sequences, -1, heads))  # [parts, B, W, H, T, D / H]
    return by_window.permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(1, 2).contiguous()
