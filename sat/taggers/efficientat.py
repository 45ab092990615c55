"""EfficientAT's MobileNets (Schmid, Koutini, Widmer, ICASSP 2023): published AudioSet taggers, also used as teachers.

The network is MobileNetV3-Large (Howard et al., ICCV 2019) over the log-mel of a whole clip, in any of the published
widths. The weights come from a published state dict. Each batch-norm is folded into the convolution before it.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.config import CLASSES
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.taggers.kaldi import PREEMPHASIS, filterbank
from satpipe.sat.tensor_files import read_tensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

RATE_HZ = 32_000
HOP_SAMPLES = 320  # 10 ms
WINDOW_SAMPLES = 800  # 25 ms
FFT_SAMPLES = 1024
HIGHEST_HZ = 15_000.0
_POWER_OFFSET = 1e-5
_HIDDEN = 1280  # channels before the classes at width 1
_RANDOM_WIDTH = 0.4  # of mn04_as

# MobileNetV3-Large, Howard et al. 2019, Table 1: kernel, channels inside and after each block at width 1,
# squeeze-excitation, activation, stride.
_BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
    (5, 960, 160, True, nn.Hardswish, 1),
)


class EfficientAT(Tagger):
    """An EfficientAT of any published width; its weights are a published state dict."""

    rate_hz = RATE_HZ
    needs_weights = True
    weights_example = "mn04_as_mAP_432.pt, of EfficientAT's releases on GitHub"
    model: "Network"

    def __init__(self, weights: Path | None) -> None:
        # Not part of the network: the front end stays in float32, whatever the precision of the network.
        self.window = torch.hann_window(WINDOW_SAMPLES, periodic=False)
        self.filterbank = filterbank(RATE_HZ, FFT_SAMPLES, 0.0, HIGHEST_HZ)  # the last bin, 16 kHz, is unused
        self.model = Network(_RANDOM_WIDTH) if weights is None else _load(weights)
        self.model.requires_grad_(False).eval().fold_norms()

    @property
    def front_end_device(self) -> torch.device:
        """The device of the model."""
        return self.device

    def features(self, waveforms: Tensor) -> Tensor:
        """Shape: [B, n] samples at 32 kHz, at least 514 -> [B, 128, (n - 1) // 320 + 1]."""
        emphasised = waveforms[:, 1:] - PREEMPHASIS * waveforms[:, :-1]
        margin = FFT_SAMPLES // 2
        padded = F.pad(emphasised, (margin, margin), mode="reflect")
        framed = padded.unfold(-1, FFT_SAMPLES, HOP_SAMPLES)
        edge = (FFT_SAMPLES - WINDOW_SAMPLES) // 2
        # The power does not depend on the position of the samples within the FFT.
        framed = framed[..., edge : edge + WINDOW_SAMPLES] * self.window.to(waveforms.device)
        spectrum = torch.fft.rfft(framed, n=FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()
        mel: Tensor = power[..., :-1] @ self.filterbank.to(waveforms.device)
        return ((mel + _POWER_OFFSET).log() + 4.5).div(5.0).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [B, 128, F] -> scores [B, 527]."""
        return self.forward_and_embed(features)[0]

    def forward_and_embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Also return what the last layer reads, [B, D]."""
        embeddings = self.model.embeddings(features)
        return torch.sigmoid(self.model.classifier[-1](embeddings).float()), embeddings

    @property
    def embedding_size(self) -> int:
        """Inputs of the last layer."""
        return self.model.classifier[-1].in_features  # type: ignore[return-value]


class Network(nn.Module):
    """The network without its front end, with the published tensor names; `width` multiplies the channels."""

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = _eights(16 * width)
        layers: list[nn.Module] = [_Convolution(1, channels, 3, 2, nn.Hardswish)]
        for kernel, expanded, out, excite, activation, stride in _BLOCKS:
            layers.append(
                _Block(channels, _eights(expanded * width), _eights(out * width), kernel, excite, activation, stride)
            )
            channels = _eights(out * width)
        self.features = nn.Sequential(*layers, _Convolution(channels, 6 * channels, 1, 1, nn.Hardswish))
        hidden = _eights(_HIDDEN * width)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6 * channels, hidden), nn.Hardswish(), nn.Dropout(), nn.Linear(hidden, CLASSES),
        )  # fmt: skip

    def forward(self, log_mel: Tensor) -> Tensor:
        """Shape: [B, 128, F] -> logits [B, 527]."""
        return self.classifier[-1](self.embeddings(log_mel))  # type: ignore[no-any-return]

    def embeddings(self, log_mel: Tensor) -> Tensor:
        """Shape: [B, 128, F] -> outputs of all layers but the last, [B, D]."""
        x = self.features(log_mel[:, None].contiguous(memory_format=torch.channels_last))
        return self.classifier[:-1](x)  # type: ignore[no-any-return]

    def fold_norms(self) -> None:
        """Fold each batch-norm into its convolution."""
        for layer in self.modules():
            if isinstance(layer, _Convolution):
                pair: Any = list(layer)[:2]
                layer[0], layer[1] = fuse_conv_bn_eval(*pair), nn.Identity()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Convolution(nn.Sequential):
    """Convolution, batch-norm, activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, activation: type[nn.Module], groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3),
            activation(inplace=True),
        )


class _SqueezeExcitation(nn.Module):
    """Weights the channels by a function of their means over frequency and time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _eights(channels // 4)
        weights = OrderedDict(
            mean=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc1=nn.Linear(channels, squeezed),
            relu=nn.ReLU(),
            fc2=nn.Linear(squeezed, channels),
            sigmoid=nn.Sigmoid(),
        )
        self.conc_se_layers = nn.ModuleList([nn.Sequential(weights)])

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, C, H, W] -> [B, C, H, W]."""
        return x * self.conc_se_layers[0](x)[:, :, None, None]  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Inverted residual: expansion, depthwise convolution, squeeze-excitation, projection."""

    def __init__(
        self,
        inputs: int,
        inside: int,
        outputs: int,
        kernel: int,
        excite: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *([_Convolution(inputs, inside, 1, 1, activation)] if inside != inputs else []),
            _Convolution(inside, inside, kernel, stride, activation, groups=inside),
            *([_SqueezeExcitation(inside)] if excite else []),
            _Convolution(inside, outputs, 1, 1, nn.Identity),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        y: Tensor = self.block(x)
        return x + y if self.residual else y


def _eights(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8 and at least nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _load(path: Path) -> Network:
    state = read_tensors(path)
    try:
        classes = len(state["classifier.5.weight"])
        if classes != CLASSES:
            raise CheckpointError(f"{path} has {classes} classes instead of AudioSet's {CLASSES}")
        network = Network(len(state["classifier.2.weight"]) / _HIDDEN)
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except KeyError as error:
        raise CheckpointError(f"{path} is not an EfficientAT network: it has no {error.args[0]}") from error
    except RuntimeError as error:
        raise CheckpointError(f"{path} is not an EfficientAT network: {error}") from error
    return network
