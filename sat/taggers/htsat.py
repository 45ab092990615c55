"""HTS-AT (Chen et al., ICASSP 2022, arXiv 2202.00874) with the encoder of transformers' CLAP.

It computes the tokens of 10.24 s at every delay: a shorter segment is repeated as often as it fits into 1024 frames and
then stretched to that length, as in the authors' code.
"""

import re
from pathlib import Path

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.config import CLASSES
from satpipe.sat.taggers.huggingface import transformers
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.tensor_files import read_tensors
from torch import Tensor, nn
from torch.nn import functional as F

FFT_SAMPLES = 1024
HOP_SAMPLES = 320
MEL_BANDS = 64
LOW_HZ, HIGH_HZ = 50.0, 14_000.0
FRAMES = 1024
_PREFIX = "sed_model."  # of all tensor names in the published files
# Parts of transformers' tensor names, and the published ones.
_RENAMED = {
    "audio_encoder.": "", "batch_norm.": "bn0.", "layernorm_before.": "norm1.", "layernorm_after.": "norm2.",
    "attention.self.": "attn.", "attention.output.dense.": "attn.proj.", "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
}  # fmt: skip


class HTSAT(Tagger):
    """HTS-AT of the published size; its weights are a published file, with outputs in AudioSet's order."""

    rate_hz = 32_000
    needs_weights = True
    packages = ("transformers",)
    weights_example = "HTSAT_AudioSet_Saved_1.ckpt"
    model: "Network"

    def __init__(self, weights: Path | None) -> None:
        library = transformers("HTS-AT")
        self.model = Network(library.ClapAudioModel(library.ClapAudioConfig())).eval()
        bins = FFT_SAMPLES // 2 + 1
        filters = library.audio_utils.mel_filter_bank(
            bins, MEL_BANDS, LOW_HZ, HIGH_HZ, self.rate_hz, norm="slaney", mel_scale="slaney"
        )
        self._window, self._filterbank = torch.hann_window(FFT_SAMPLES), torch.from_numpy(filters).float()
        if weights:
            _load(self.model, weights)

    def features(self, waveforms: Tensor) -> Tensor:
        """Shape: [B, n] samples at 32 kHz -> [B, 1, up to 1024 frames, 64] in dB."""
        padded = F.pad(waveforms, (FFT_SAMPLES // 2, FFT_SAMPLES // 2), mode="reflect")
        spectrum = torch.fft.rfft(padded.unfold(-1, FFT_SAMPLES, HOP_SAMPLES) * self._window)
        power = spectrum.real.square() + spectrum.imag.square()
        log_mel: Tensor = 10 * (power @ self._filterbank).clamp_min(1e-10).log10()
        return log_mel.repeat(1, max(1, FRAMES // log_mel.shape[1]), 1)[:, None]

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [B, 1, frames, 64] -> scores [B, 527]."""
        return self.forward_and_embed(features)[0]

    def forward_and_embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Also return the mean of the tokens over time and frequency, [B, 768]."""
        tokens = self.model.tokens(features)
        return torch.sigmoid(self.model.logits(tokens)), tokens.flatten(2).mean(2)

    @property
    def embedding_size(self) -> int:
        """Channels of the last tokens."""
        return self.model.tscam_conv.in_channels

    def tokens(self, samples: int) -> int:
        """Return the number of 4x4 patches at the first of four stages; each stage merges four into one."""
        return FRAMES // 4 * (MEL_BANDS // 4)


class Network(nn.Module):
    """The encoder, and the paper's token-semantic module: a convolution that scores each class at each time."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.tscam_conv = nn.Conv2d(768, CLASSES, (2, 3), padding=(0, 1))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Shape: [B, 1, frames, 64] -> logits [B, 527]."""
        return self.logits(self.tokens(log_mel))

    def tokens(self, log_mel: Tensor) -> Tensor:
        """Shape: [B, 1, frames, 64] -> [B, 768, 2, 32]."""
        return self.encoder(input_features=log_mel).last_hidden_state  # type: ignore[no-any-return]

    def logits(self, tokens: Tensor) -> Tensor:
        """Shape: [B, 768, 2, 32] -> logits [B, 527], the mean over time."""
        return self.tscam_conv(tokens).flatten(2).mean(2)  # type: ignore[no-any-return]


def _load(network: Network, path: Path) -> None:
    published = {name.removeprefix(_PREFIX): tensor for name, tensor in read_tensors(path).items()}
    state = {}
    try:
        for name, own in network.state_dict().items():
            state[name] = own if name.endswith(("_index", "num_batches_tracked")) else _tensor(published, name)
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not an HTS-AT network: {error}") from error


def _tensor(published: dict[str, Tensor], name: str) -> Tensor:
    """Return the published tensor for one of our names; queries, keys and values are thirds of one tensor."""
    name = name.removeprefix("encoder.")
    for theirs, ours in _RENAMED.items():
        name = name.replace(theirs, ours)
    third = re.search(r"attn\.(query|key|value)\.", name)
    if third is None:
        return published[name]
    whole = published[name.replace(third[0], "attn.qkv.")]
    return whole.chunk(3)[("query", "key", "value").index(third[1])]
