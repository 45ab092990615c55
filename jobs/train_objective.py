"""What `satpipe train` makes smaller: the loss of a batch at each stage."""

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from jobs.train_config import TrainConfig
from sat import augment, checkpoint, training
from sat.config import get_config
from sat.frontend import LogMel, clamp_dynamic_range
from sat.mae import MaskedAutoencoder
from sat.model import SAT
from sat.two_chunks import two_chunk_loss


class Objective(nn.Module):
    """Batch in, loss out: what is wrapped for data-parallel training."""

    def __init__(self, settings: TrainConfig) -> None:
        super().__init__()
        self.settings = settings
        config = get_config(settings.arch)
        self.log_mel = LogMel()
        self.autoencoder: MaskedAutoencoder | None = None
        if settings.stage == "mae":
            self.autoencoder = MaskedAutoencoder(config, settings.decoder_depth)
        self.tagger = SAT(config) if self.autoencoder is None else self.autoencoder.model
        training.initialise(self.tagger)
        if settings.init:
            start = checkpoint.load(settings.init)
            training.start_from(self.tagger, start.state, head=start.metadata.get("stage") != "mae")

    def train(self, mode: bool = True) -> "Objective":
        """Switch between training and evaluation; a fixed input norm stays as it is."""
        super().train(mode)
        if self.settings.input_norm == "fixed":
            self.tagger.init_bn.eval()
        return self

    def frames(self, inputs: Tensor) -> Tensor:
        """Waveforms [B, n] or log-mel values -> clamped log-mel values of what the model reads, [B, 64, F]."""
        if inputs.ndim == 3:
            return inputs
        config = self.tagger.config
        frames = self.log_mel(inputs)[..., : inputs.shape[-1] // 160]
        if config.streaming:
            chunks = frames[..., : 2 * config.chunk_frames].split(config.chunk_frames, -1)
            return torch.cat([clamp_dynamic_range(chunk) for chunk in chunks], -1)
        return clamp_dynamic_range(frames)

    def forward(self, inputs: Tensor, labels: Tensor | None, rng: np.random.Generator) -> Tensor:
        """Loss of one batch."""
        settings = self.settings
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        frames = self.frames(inputs)
        if settings.mask_frames or settings.mask_bands:
            frames = augment.mask(frames, rng, most_frames=settings.mask_frames, most_bands=settings.mask_bands)
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        if settings.stage == "sat":
            assert labels is not None
            return two_chunk_loss(training.crop_logits(self.tagger, frames, dtype), labels)
        with torch.autocast(frames.device.type, dtype, enabled=dtype != torch.float32):
            if self.autoencoder is not None:
                return self.autoencoder(frames, generator)  # type: ignore[no-any-return]
            assert labels is not None
            # On a processor the backward of torch's fused attention is slow: the whole step takes 1.6 times as long.
            with sdpa_kernel(SDPBackend.MATH) if frames.device.type == "cpu" else nullcontext():
                logits = training.full_context_logits(
                    self.tagger, frames, generator, patch_out=settings.patch_out, drop_path=settings.drop_path
                )
        return training.binary_cross_entropy(logits, labels)
