"""One chunk of a recording as one module of tensors: waveform and memory in, scores and memory out.

It is what runs where satpipe is not: all shapes are fixed, and nothing is kept between calls but what the caller hands
on. Called with the windows of a recording in turn it gives the scores of `StreamingTagger` in the gapless cut.
"""

from math import log, pi

import torch
from satpipe.sat.model.config import FREQUENCY_PATCHES, HOP_SAMPLES, PATCH_FRAMES, PATCH_SAMPLES, ModelConfig
from satpipe.sat.model.frontend import CENTRE_SAMPLES, POWER_FLOOR, WINDOW_SAMPLES, clamp_dynamic_range, mel_filterbank
from satpipe.sat.model.network import SAT, Block
from torch import Tensor, nn

BEFORE_SAMPLES = CENTRE_SAMPLES
"""Samples of a window before its chunk: the left half of what the first frame sees."""
AFTER_SAMPLES = CENTRE_SAMPLES - HOP_SAMPLES
"""Samples of a window after its chunk: the rest of what the last frame sees."""
_STEP_SAMPLES = 32  # divides the hop and the length of a frame, so that frames are made of whole rows of samples
_FLOOR_DB = 10 * log(POWER_FLOOR, 10)


def window_samples(config: ModelConfig) -> int:
    """Samples that one call reads at 16 kHz; the next window starts `chunk_samples` of the configuration later."""
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
        self.blocks = nn.ModuleList(ChunkBlock(block, model.config.chunk_tokens) for block in model.blocks)  # type: ignore[arg-type]

    def forward(
        self, samples: Tensor, length: Tensor, chunk: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Tag the chunk that starts at sample 256 of a window.

        Args:
            samples: The window, [`window_samples`]. Before the recording's start and after its end anything may stand.
            length: Samples from the chunk's start to the recording's end, at least 1, int64 [1]. Every number from
                `window_samples` on means the same: the end is not in the window.
            chunk: Number of the chunk in its recording, int64 [1]. At 0 the memory is empty, whatever is given.
            memory: What the call before returned, [blocks, M, D]; None for a full-context model.

        Returns:
            Scores [527], and unless it is a full-context model the memory for the next call.
        """
        config = self.model.config
        length = length.clamp(1, window_samples(config))
        patches = (length + PATCH_SAMPLES - 1) // PATCH_SAMPLES  # the last one is filled up with digital silence
        x = self.model.embed(self.log_mel(samples, length, patches, chunk)[None])[0]
        heard = self._heard(patches)
        if memory is None:
            mask = _mask(heard)
            for block in self.blocks:
                x = block(x, mask)
            return (self._scores(x, heard),)
        age = torch.arange(config.memory_tokens, 0, -1)  # of the tokens in memory, the oldest first
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
        """Tokens of the chunk that stand for some of the recording, boolean [T]: those after its end do not."""
        config = self.model.config
        heard = (torch.arange(config.chunk_frames // PATCH_FRAMES) < patches).repeat(FREQUENCY_PATCHES)
        return torch.cat([torch.ones(1, dtype=torch.bool), heard]) if config.class_token else heard

    def _scores(self, x: Tensor, heard: Tensor) -> Tensor:
        """Tokens [T, D] -> scores [527]."""
        x = self.model.norm(x)
        pooled = x[0] if self.model.config.class_token else (x * heard[:, None]).sum(0) / heard.sum()
        return torch.sigmoid(self.model.outputlayer(pooled[None])[0])


def _mask(seen: Tensor) -> Tensor:
    """What attention adds to its logits, [M + T]: nothing for tokens that are seen."""
    return torch.where(seen, 0.0, -torch.inf)


class ChunkBlock(nn.Module):
    """A transformer block for the tokens of one chunk, its weights laid out for the products that this takes."""

    def __init__(self, block: Block, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.heads = block.attn.heads
        self.norm1, self.proj, self.norm2, self.mlp = block.norm1, block.attn.proj, block.norm2, block.mlp
        qkv = block.attn.qkv
        weights, biases = qkv.weight.detach().chunk(3), qkv.bias.detach().chunk(3)
        self.q, self.k, self.v = (_linear(*of_part) for of_part in zip(weights, biases, strict=True))

    def forward(self, seen: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            seen: Tokens of memory, then of the chunk, [M + T, D].
            mask: Added to the logits of all queries, [M + T].

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
    """The front end for one window, with what `LogMelStream` and `ChunkStream` do at the ends of a recording.

    The Fourier transform is a product with cosines and sines: there is no operation for it that all devices have. In
    float32 it is as close to the exact one as an FFT is.
    """

    cosines: Tensor
    sines: Tensor
    filterbank: Tensor
    rows: Tensor

    def __init__(self, frames: int) -> None:
        super().__init__()
        # The window is symmetric about sample 256 and 0 at sample 0: x[256 - n] and x[256 + n] share cosine and sine,
        # up to the sine's sign. The first and the last bin are in no filter.
        half = WINDOW_SAMPLES // 2
        n = torch.arange(1, half + 1, dtype=torch.float64)
        angles = 2 * pi / WINDOW_SAMPLES * torch.outer(n, torch.arange(1, half, dtype=torch.float64))
        window = torch.hann_window(WINDOW_SAMPLES, dtype=torch.float64)[1 : half + 1, None].clone()
        window[-1] /= 2  # sample 256 is its own mirror image and comes twice
        self.register_buffer("cosines", (window * angles.cos()).float())
        self.register_buffer("sines", (window * angles.sin()).float())
        self.register_buffer("filterbank", mel_filterbank()[1:half].clone())
        steps, steps_of_frame = HOP_SAMPLES // _STEP_SAMPLES, WINDOW_SAMPLES // _STEP_SAMPLES
        rows = steps * torch.arange(frames)[:, None] + torch.arange(steps_of_frame)
        self.register_buffer("rows", rows.flatten())

    def forward(self, samples: Tensor, length: Tensor, patches: Tensor, chunk: Tensor) -> Tensor:
        """Compute the frames of the chunk, clamped; those after the last patch are at the floor.

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
        """Put in place what lies outside the recording: silence up to a whole patch, mirror images at both ends."""
        at = torch.arange(-BEFORE_SAMPLES, len(samples) - BEFORE_SAMPLES)  # 0 is the chunk's start
        at = torch.where(chunk == 0, at.abs(), at)
        last = patches * PATCH_SAMPLES - 1
        at = torch.minimum(at, 2 * last - at).clamp_min(-BEFORE_SAMPLES)
        return torch.where(at < length, samples.index_select(0, at + BEFORE_SAMPLES), 0.0)
