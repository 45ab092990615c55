"""A module for one chunk of a recording: waveform and memory in, scores and memory out.

It runs without satpipe: all shapes are fixed, and the caller passes the state from call to call. Called with the
windows of a recording in order, it gives the scores of `StreamingTagger` in gapless mode.
"""

from math import log, pi

import torch
from satpipe.sat.model.config import (
    CENTRE_SAMPLES,
    FREQUENCY_PATCHES,
    HOP_SAMPLES,
    PATCH_FRAMES,
    PATCH_SAMPLES,
    WINDOW_SAMPLES,
    ModelConfig,
)
from satpipe.sat.model.frontend import POWER_FLOOR, clamp_dynamic_range, mel_filterbank
from satpipe.sat.model.network import SAT, Block
from torch import Tensor, nn

BEFORE_SAMPLES = CENTRE_SAMPLES
"""Samples of a window before its chunk: the left half of the window of the first frame."""
AFTER_SAMPLES = CENTRE_SAMPLES - HOP_SAMPLES
"""Samples of a window after its chunk: the rest of the window of the last frame."""
_STEP_SAMPLES = 32  # divides the hop and the length of a frame, so that frames consist of whole rows of samples
_FLOOR_DB = 10 * log(POWER_FLOOR, 10)


def window_samples(config: ModelConfig) -> int:
    """Return the samples per call at 16 kHz; the next window starts `chunk_samples` of the configuration later."""
    return BEFORE_SAMPLES + config.chunk_samples + AFTER_SAMPLES


class ChunkTagger(nn.Module):
    """Tags one chunk of one recording.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: SAT) -> None:
        super().__init__()
        self.model = model
        self.log_mel = WindowLogMel(model.config.chunk_frames)
        self.blocks = nn.ModuleList(ChunkBlock(block, model.config.chunk_tokens) for block in model.blocks)

    def forward(
        self, samples: Tensor, length: Tensor, chunk: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Tag the chunk that starts at sample 256 of a window.

        Args:
            samples: The window, [`window_samples`]. Values before the recording's start and after its end are ignored.
            length: Samples from the chunk's start to the recording's end, at least 1, int64 [1]. Any number from
                `window_samples` on means that the end is not in the window.
            chunk: Position of the chunk in its recording, int64 [1]. At 0 the memory is treated as empty.
            memory: Memory from the previous call, [blocks, M, D]; None for a full-context model.

        Returns:
            Scores [527] and, for a streaming model, the memory for the next call.
        """
        config = self.model.config
        length = length.clamp(1, window_samples(config))
        patches = (length + PATCH_SAMPLES - 1) // PATCH_SAMPLES  # the last one is padded with digital silence
        x = self.model.embed(self.log_mel(samples, length, patches, chunk)[None])[0]
        heard = self._heard(patches)
        if memory is None:
            mask = _mask(heard)
            for block in self.blocks:
                x = block(x, mask)
            return (self._scores(x, heard),)
        age = torch.arange(config.memory_tokens, 0, -1)  # of the memory tokens, oldest first
        mask = _mask(torch.cat([age <= chunk * config.chunk_tokens, heard]))
        kept = []
        for index, block in enumerate(self.blocks):
            past = memory[index]
            if index == 0:  # as in `SAT.logits`
                past = past + self.model.memory_positions(config.memory_tokens)
            seen = torch.cat([past, x])
            kept.append(seen[-config.memory_tokens :])
            x = block(seen, mask)
        return self._scores(x, heard), torch.stack(kept)

    def _heard(self, patches: Tensor) -> Tensor:
        """Return True for the tokens of the chunk before the recording's end, [T]."""
        config = self.model.config
        heard = (torch.arange(config.chunk_frames // PATCH_FRAMES) < patches).repeat(FREQUENCY_PATCHES)
        return torch.cat([torch.ones(1, dtype=torch.bool), heard]) if config.class_token else heard

    def _scores(self, x: Tensor, heard: Tensor) -> Tensor:
        """Tokens [T, D] -> scores [527]."""
        x = self.model.norm(x)
        pooled = x[0] if self.model.config.class_token else (x * heard[:, None]).sum(0) / heard.sum()
        return torch.sigmoid(self.model.outputlayer(pooled[None])[0])


def _mask(seen: Tensor) -> Tensor:
    """Return the mask added to the attention logits, [M + T]: 0 for visible tokens, -inf for others."""
    return torch.where(seen, 0.0, -torch.inf)


class ChunkBlock(nn.Module):
    """A transformer block for the tokens of one chunk, with separate weights for queries, keys and values."""

    def __init__(self, block: Block, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.heads = block.attn.heads
        self.norm1, self.proj, self.norm2, self.mlp = block.norm1, block.attn.proj, block.norm2, block.mlp
        qkv = block.attn.qkv
        weights, biases = qkv.weight.detach().chunk(3), qkv.bias.detach().chunk(3)
        self.q, self.k, self.v = (_linear(*of_part) for of_part in zip(weights, biases, strict=True))

    def forward(self, seen: Tensor, mask: Tensor) -> Tensor:
        """Run the block.

        Args:
            seen: Tokens of the memory, then of the chunk, [M + T, D].
            mask: Added to the logits of each query, [M + T].

        Shape:
            [M + T, D] -> [T, D]
        """
        rows = self.norm1(seen)
        q, k, v = self._split(self.q(rows[-self.tokens :])), self._split(self.k(rows)), self._split(self.v(rows))
        logits = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5  # [H, T, M + T]
        heads = torch.softmax(logits + mask, dim=-1) @ v
        x = seen[-self.tokens :] + self.proj(heads.transpose(0, 1).flatten(1))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]

    def _split(self, rows: Tensor) -> Tensor:
        """[N, D] -> [H, N, D / H]."""
        return rows.unflatten(-1, (self.heads, -1)).transpose(0, 1)  # type: ignore[no-any-return]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


class WindowLogMel(nn.Module):
    """The front end for one window, including the treatment of a recording's ends in `LogMelStream` and `ChunkStream`.

    The Fourier transform is a product with cosines and sines, since not all devices have an operation for it. In
    float32 it is as exact as an FFT.
    """

    cosines: Tensor
    sines: Tensor
    filterbank: Tensor
    rows: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        # The window is symmetric about sample 256 and 0 at sample 0: x[256 - n] and x[256 + n] share cosine and sine,
        # up to the sign of the sine. No filter contains the first or the last bin.
        half = WINDOW_SAMPLES // 2
        n = torch.arange(1, half + 1, dtype=torch.float64)
        angles = 2 * pi / WINDOW_SAMPLES * torch.outer(n, torch.arange(1, half, dtype=torch.float64))
        window = torch.hann_window(WINDOW_SAMPLES, dtype=torch.float64)[1 : half + 1, None].clone()
        window[-1] /= 2  # sample 256 is its own mirror image and counts twice
        self.register_buffer("cosines", (window * angles.cos()).float())
        self.register_buffer("sines", (window * angles.sin()).float())
        self.register_buffer("filterbank", mel_filterbank()[1:half].clone())
        steps, steps_of_frame = HOP_SAMPLES // _STEP_SAMPLES, WINDOW_SAMPLES // _STEP_SAMPLES
        rows = steps * torch.arange(frames)[:, None] + torch.arange(steps_of_frame)
        self.register_buffer("rows", rows.flatten())

    def forward(self, samples: Tensor, length: Tensor, patches: Tensor, chunk: Tensor) -> Tensor:
        """Compute the clamped frames of the chunk; those after the last patch are at the floor.

        Shape:
            [n], with the arguments of `ChunkTagger.forward` -> [64, F] dB
        """
        frames = self._ended(samples, length, patches, chunk).reshape(-1, _STEP_SAMPLES).index_select(0, self.rows)
        frames = frames.reshape(-1, WINDOW_SAMPLES)
        half = WINDOW_SAMPLES // 2
        left, right = frames[:, 1 : half + 1], frames[:, half:].flip(1)
        real, imaginary = (left + right) @ self.cosines, (left - right) @ self.sines
        mel = (real * real + imaginary * imaginary) @ self.filterbank  # [F, 64]
        log_mel = mel.clamp_min(POWER_FLOOR).log() * (10 / log(10))
        heard = torch.arange(len(log_mel)) < patches * PATCH_FRAMES
        return clamp_dynamic_range(torch.where(heard[:, None], log_mel, _FLOOR_DB).T)

    def _ended(self, samples: Tensor, length: Tensor, patches: Tensor, chunk: Tensor) -> Tensor:
        """Replace the samples outside the recording: silence up to a whole patch, mirror images at both ends."""
        at = torch.arange(-BEFORE_SAMPLES, len(samples) - BEFORE_SAMPLES)  # 0 is the chunk's start
        at = torch.where(chunk == 0, at.abs(), at)
        last = patches * PATCH_SAMPLES - 1
        at = torch.minimum(at, 2 * last - at).clamp_min(-BEFORE_SAMPLES)
        return torch.where(at < length, samples.index_select(0, at + BEFORE_SAMPLES), 0.0)
