"""Masked autoencoder on log-mel patches, for pretraining (paper section 4.3; He et al., CVPR 2022).

Three quarters of a clip's patches are masked. The encoder reads the rest, and a small decoder predicts the masked ones.
Only the encoder is kept.
"""

import torch
from satpipe.sat.model.config import FREQUENCY_PATCHES, PATCH_BANDS, PATCH_FRAMES, ModelConfig
from satpipe.sat.model.network import NORM_EPS, SAT, Block
from torch import Tensor, nn

MASKED = 0.75
DECODER_WIDTH, DECODER_HEADS = 512, 8
PATCH_VALUES = PATCH_BANDS * PATCH_FRAMES
_EPS = 1e-6


class MaskedAutoencoder(nn.Module):
    """Encoder (a full-context model) and decoder.

    Attributes:
        model: The encoder; its head is not trained.
    """

    def __init__(self, config: ModelConfig, decoder_depth: int, decoder_width: int = DECODER_WIDTH) -> None:
        """Create the encoder and the decoder.

        Args:
            config: A full-context configuration; with a class token, the encoder reads it besides the patches.
            decoder_depth: Blocks of the decoder: 4 for the tiny model, 8 for the larger ones.
            decoder_width: Channels of the decoder's tokens.
        """
        super().__init__()
        self.model = SAT(config)
        self.model.outputlayer.requires_grad_(False)
        self.decoder_embed = nn.Linear(config.width, decoder_width)
        self.mask_token = nn.Parameter(torch.randn(1, decoder_width) * 0.02)
        places = config.time_positions * FREQUENCY_PATCHES + config.class_token
        self.decoder_positions = nn.Parameter(torch.randn(places, decoder_width) * 0.02)
        self.decoder_blocks = nn.ModuleList(Block(decoder_width, DECODER_HEADS) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=NORM_EPS)
        self.decoder_out = nn.Linear(decoder_width, PATCH_VALUES)

    def forward(self, log_mel: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean squared error on the masked patches, each normalised to mean 0 and standard deviation 1.

        Shape:
            [B, 64, F] dB -> one number
        """
        target = patches(log_mel)  # [B, T, 256]
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + _EPS).sqrt()
        tokens = self.model.embed(log_mel)
        head = tokens[:, : tokens.shape[1] - target.shape[1]]  # the class token, or nothing
        tokens = tokens[:, head.shape[1] :]
        batch, count, _ = tokens.shape
        shown = max(1, round(count * (1 - MASKED)))
        order = torch.rand(batch, count, generator=generator).argsort(1).to(tokens.device)
        kept, hidden = order[:, :shown], order[:, shown:]
        x = torch.cat([head, _take(tokens, kept)], dim=1)
        for block in self.model.blocks:
            x = block(x, None)
        x = self.decoder_embed(self.model.norm(x))
        front, shown_tokens = x.tensor_split([head.shape[1]], dim=1)
        first, positions = self.decoder_positions.tensor_split([head.shape[1]])
        positions = positions[:count].expand(batch, -1, -1)
        masked = (self.mask_token + _take(positions, hidden)).to(x.dtype)
        x = torch.cat([front + first, shown_tokens + _take(positions, kept), masked], dim=1)
        for decoder_block in self.decoder_blocks:
            x = decoder_block(x, None)
        guess = self.decoder_out(self.decoder_norm(x[:, -hidden.shape[1] :]))
        error: Tensor = guess.float() - _take(target, hidden)
        return error.square().mean()


def patches(log_mel: Tensor) -> Tensor:
    """Cut log-mel into patches, frequency-major like the model's tokens.

    Shape:
        [B, 64, F] -> [B, 4 (F // 16), 256]
    """
    frames = log_mel.shape[-1] // PATCH_FRAMES * PATCH_FRAMES
    x: Tensor = log_mel[..., :frames].unflatten(-1, (-1, PATCH_FRAMES)).unflatten(1, (FREQUENCY_PATCHES, PATCH_BANDS))
    return x.transpose(2, 3).flatten(3).flatten(1, 2)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """[B, T, D], [B, N] -> [B, N, D]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
