"""The SAT training step: two consecutive chunks of many crops at once (paper section 4.4).

A plain loop runs the model twice and lets autograd differentiate attention. Here both chunks go through a block
together, since the memory of a block for the second chunk is that block's input for the first, and the parts of a block
are autograd functions with their own backward pass. The gradients are those of the loop: none flows into the memory,
but the weights that read it receive theirs. Matrices are cast once per step from the float32 parameters, without
autocast and without a second copy of the parameters.

Axes: B crops, T tokens of a chunk, D channels, H heads.
"""

from typing import Any

import torch
from satpipe.sat.model.network import NORM_EPS, SAT, Block, allows_consecutive
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def two_chunks(model: SAT, log_mel: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tag crops of two chunks: the first has no memory; the memory of the second is the first, without gradient.

    Args:
        model: A streaming configuration whose memory is one chunk; its parameters are float32.
        log_mel: [B, 64, 2 F] with F the configuration's `chunk_frames`, dB.
        dtype: Type of matrix products, such as bfloat16.

    Returns:
        Logits of both chunks, [B, 2, 527] float32.

    Raises:
        ValueError: The memory spans more than one chunk, the model has a class token, or the number of frames is wrong.
    """
    config = model.config
    if not allows_consecutive(config) or config.class_token:
        raise ValueError(f"{config.name} cannot be trained on two chunks at once")
    if log_mel.shape[-1] != 2 * config.chunk_frames:
        raise ValueError(f"{log_mel.shape[-1]} frames are not two chunks of {config.chunk_frames}")
    tokens = config.chunk_tokens
    chunks = log_mel.unflatten(-1, (2, config.chunk_frames)).transpose(1, 2).flatten(0, 1)  # [2 B, 64, F]
    with torch.autocast(log_mel.device.type, dtype, enabled=dtype != torch.float32):
        x = model.embed(chunks).view(len(log_mel), 2 * tokens, config.width).to(dtype)
    for index, block in enumerate(model.blocks):
        # Block 0 adds positions to its memory a second time, so its memory is not the first chunk itself.
        memory = x[:, :tokens].detach() + model.memory_positions(tokens).to(dtype) if index == 0 else None
        x = x + _attention(block, x, memory)
        x = x + _Mlp.apply(  # type: ignore[no-untyped-call]
            x, block.norm2.weight, block.norm2.bias,
            block.mlp.fc1.weight, block.mlp.fc1.bias, block.mlp.fc2.weight, block.mlp.fc2.bias,
        )  # fmt: skip
    x = F.layer_norm(x, (config.width,), model.norm.weight.to(dtype), model.norm.bias.to(dtype), NORM_EPS)
    pooled = x.unflatten(1, (2, tokens)).mean(2).float()
    return model.outputlayer(pooled)  # type: ignore[no-any-return]


def _attention(block: Block, x: Tensor, memory: Tensor | None) -> Tensor:
    attn, norm = block.attn, block.norm1
    mixed = _Attention.apply(  # type: ignore[no-untyped-call]
        x, memory, norm.weight, norm.bias, attn.qkv.weight, attn.qkv.bias, attn.heads
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
    """LayerNorm, projection to queries, keys and values, and attention of both chunks; no output projection."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, memory: Tensor | None, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor,
        heads: int,
    ) -> Tensor:  # fmt: skip
        crops, both, width = x.shape
        # The product yields queries already divided by the square root of their length.
        rows = _row_factors(weight, heads)
        folded = _Folded(scale, shift, weight * rows, bias * rows[:, 0], x.dtype)
        n, mean, rstd = torch.native_layer_norm(x, (width,), None, None, NORM_EPS)
        q, k, v = _to_heads(F.linear(n, folded.weight, folded.bias), 3, heads)  # [B H, 2 T, D / H] each
        n_memory = mean_memory = rstd_memory = None
        if memory is not None:
            n_memory, mean_memory, rstd_memory = torch.native_layer_norm(memory, (width,), None, None, NORM_EPS)
            past_k, past_v = _to_heads(F.linear(n_memory, folded.weight[width:], folded.bias[width:]), 2, heads)
            k, v = torch.cat([past_k, k], 1), torch.cat([past_v, v], 1)
        weights = torch.softmax(torch.baddbmm(_hidden(both // 2, k.shape[1], x), q, k.mT), -1)
        ctx.save_for_backward(
            x, mean, rstd, n, memory, mean_memory, rstd_memory, n_memory, q, k, v, weights,
            scale, shift, weight, folded.weight,
        )  # fmt: skip
        ctx.heads = heads
        return _from_heads(torch.bmm(weights, v)[None], crops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
        (
            x, mean, rstd, n, memory, mean_memory, rstd_memory, n_memory, q, k, v, weights,
            scale, shift, weight, folded,
        ) = ctx.saved_tensors  # fmt: skip
        crops, both, width = x.shape
        tokens, past = both // 2, k.shape[1] - both  # past is 0, or the tokens of `memory`
        (g,) = _to_heads(g_out, 1, ctx.heads)
        g_logits = torch.ops.aten._softmax_backward_data(torch.bmm(g, v.mT), weights, -1, g.dtype)
        if past:
            g_k, g_v = torch.bmm(g_logits.mT, q), torch.bmm(weights.mT, g)
            g_qkv = torch.stack([torch.bmm(g_logits, k), g_k[:, past:], g_v[:, past:]])
        else:
            g_qkv = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
            torch.bmm(g_logits, k, out=g_qkv[0])
            torch.bmm(g_logits.mT, q, out=g_qkv[1])
            torch.bmm(weights.mT, g, out=g_qkv[2])
        g_rows = _from_heads(g_qkv, crops)  # [B, 2 T, 3 D]
        g_folded, g_bias = _weight_gradient(g_rows, n), g_rows.flatten(0, 1).sum(0)
        g_memory = None
        if memory is None:
            # The gradient of the weights includes the first chunk as memory; the gradient of x must not.
            own = torch.stack([
                torch.bmm(g_logits[:, :tokens, :tokens].mT, q[:, :tokens]),
                torch.bmm(weights[:, :tokens, :tokens].mT, g[:, :tokens]),
            ])  # fmt: skip
            g_rows[:, :tokens, width:] = _from_heads(own, crops)
        else:
            g_past = _from_heads(torch.stack([g_k[:, :past], g_v[:, :past]]), crops)  # [B, T, 2 D]
            g_folded[width:] += _weight_gradient(g_past, n_memory)
            g_bias[width:] += g_past.flatten(0, 1).sum(0)
            g_memory = torch.ops.aten.native_layer_norm_backward(
                g_past @ folded[width:], memory, (width,), mean_memory, rstd_memory, None, None, (True, False, False)
            )[0]
        g_x = torch.ops.aten.native_layer_norm_backward(
            g_rows @ folded, x, (width,), mean, rstd, None, None, (True, False, False)
        )[0]
        rows = _row_factors(weight, ctx.heads)
        g_scale, g_shift, g_weight, g_bias = _Folded.gradients(scale, shift, weight * rows, g_folded, g_bias)
        return g_x, g_memory, g_scale, g_shift, g_weight * rows, g_bias * rows[:, 0], None


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
    """[B, T, parts D] -> [parts, B H, T, D / H], contiguous."""
    crops, tokens, _ = rows.shape
    return rows.view(crops, tokens, parts, heads, -1).permute(2, 0, 3, 1, 4).reshape(parts, crops * heads, tokens, -1)


def _from_heads(parts: Tensor, crops: int) -> Tensor:
    """[parts, B H, T, D / H] -> [B, T, parts D], contiguous."""
    by_crop: Tensor = parts.unflatten(1, (crops, -1))  # [parts, B, H, T, D / H]
    return by_crop.permute(1, 3, 0, 2, 4).flatten(2).contiguous()
