"""The loss of a batch at each stage, which `satpipe train` minimises."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from satpipe.jobs.train.config import TrainConfig
from satpipe.sat.model.config import CLASSES, MEL_BANDS, get_config
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.training import augmentation as augment
from satpipe.sat.training import forward, parameters
from satpipe.sat.training.mae import MaskedAutoencoder
from satpipe.sat.weights.registry import load_checkpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

NORM_BATCHES = 16  # number of batches from which `input_norm: fixed` computes its statistics


class SequenceLoss(nn.Module):
    """Loss of stage sat for log-mel values and labels (paper section 4.4)."""

    def __init__(self, tagger: SAT, dtype: torch.dtype, settings: TrainConfig) -> None:
        super().__init__()
        self.tagger, self.dtype = tagger, dtype
        self._memory_gradient = settings.memory_gradient
        self._weights = {"sequence_weight": settings.sequence_weight, "chunk_weight": settings.chunk_weight}

    def forward(self, frames: Tensor, labels: Tensor) -> Tensor:
        """Shape: [B, 64, N F], [B, 527] or [B, 1 + N, 527] -> one number."""
        logits = forward.sequence_logits(self.tagger, frames, self.dtype, memory_gradient=self._memory_gradient)
        return forward.sequence_loss(logits, labels, **self._weights)


class Objective(nn.Module):
    """The loss of a batch, as a module that can be wrapped for data-parallel training."""

    def __init__(self, settings: TrainConfig) -> None:
        super().__init__()
        self.settings = settings
        config = get_config(settings.arch)
        self.log_mel = LogMel()
        self.autoencoder: MaskedAutoencoder | None = None
        if settings.stage == "mae":
            class_token = config.class_token or settings.mae_class_token
            self.autoencoder = MaskedAutoencoder(replace(config, class_token=class_token), settings.decoder_depth)
        self.tagger = SAT(config) if self.autoencoder is None else self.autoencoder.model
        self.dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        # In a list: as a submodule, it would register the weights a second time.
        self._sequence_loss = [SequenceLoss(self.tagger, self.dtype, settings)]
        parameters.initialise(self.autoencoder or self.tagger, settings.initialisation)
        self.tagger.init_bn.momentum = settings.norm_momentum
        if settings.init:
            start = load_checkpoint(settings.init)
            parameters.start_from(self.tagger, start.state, head=start.metadata.get("stage") != "mae")

    def train(self, mode: bool = True) -> "Objective":
        """Switch between training and evaluation; a fixed input norm stays as it is."""
        super().train(mode)
        if self.settings.input_norm == "fixed":
            self.tagger.init_bn.eval()
        return self

    def record(self, batch: int) -> None:
        """Record the GPU's kernels for a batch of stage sat, forward and backward, and replay them from then on.

        A step consists of thousands of small kernels, which take longer to start one by one than to run. This does not
        work for data-parallel training, since a replay does not call its hooks, nor for accumulated gradients, which a
        replay overwrites.
        """
        device = self.log_mel.window.device
        settings, chunks = self.settings, self.settings.sequence_chunks
        frames = torch.zeros(batch, MEL_BANDS, chunks * self.tagger.config.chunk_frames, device=device)
        labelled = (1 + chunks,) if settings.chunk_weight else ()
        labels = torch.zeros(batch, *labelled, CLASSES, device=device)
        before = {name: tensor.clone() for name, tensor in self.tagger.state_dict().items()}
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)  # recorded on another stream
        torch.cuda.make_graphed_callables(self._sequence_loss[0], (frames, labels))
        self.tagger.load_state_dict(before)  # without the statistics of the trial runs

    def fix_norm(self, batches: Iterable[Tensor]) -> None:
        """Set mean and variance of each mel band to those of the first batches of waveforms or log-mel values."""
        bands = torch.cat(
            [self.frames(inputs).transpose(0, 1).flatten(1) for inputs in islice(batches, NORM_BATCHES)], 1
        )
        self.tagger.init_bn.load_state_dict({"running_mean": bands.mean(1), "running_var": bands.var(1)}, strict=False)

    def frames(self, inputs: Tensor) -> Tensor:
        """Return the clamped log-mel values [B, 64, F] of waveforms [B, n]; log-mel values are returned as they are."""
        if inputs.ndim == 3:
            return inputs
        config = self.tagger.config
        frames = self.log_mel(inputs)[..., : inputs.shape[-1] // 160]
        if config.streaming:
            size = self.settings.sequence_chunks * config.chunk_frames
            chunks = frames[..., :size].split(config.chunk_frames, -1)
            return torch.cat([clamp_dynamic_range(chunk) for chunk in chunks], -1)
        return clamp_dynamic_range(frames)

    def forward(self, inputs: Tensor, labels: Tensor | None, rng: np.random.Generator) -> Tensor:
        """Return the loss of one batch; `labels` are None in stage mae only."""
        settings = self.settings
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        frames = self.frames(inputs)
        if settings.mask_frames or settings.mask_bands:
            widths = {"frames": settings.mask_frames, "bands": settings.mask_bands}
            frames = augment.mask(frames, rng, **widths, fixed=settings.mask_width == "fixed")
        if settings.stage == "sat":
            loss: Tensor = self._sequence_loss[0](frames, labels)
            return loss
        with torch.autocast(frames.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.autoencoder is not None:
                return self.autoencoder(frames, generator)  # type: ignore[no-any-return]
            # On a CPU the backward pass of torch's fused attention is slow: the whole step takes 1.6 times as long.
            with sdpa_kernel(SDPBackend.MATH) if frames.device.type == "cpu" else nullcontext():
                logits = forward.full_context_logits(
                    self.tagger, frames, generator, patch_out=settings.patch_out, drop_path=settings.drop_path
                )
        return F.binary_cross_entropy_with_logits(logits.float(), labels)  # type: ignore[arg-type]
