"""EfficientAT's MobileNets (Schmid, Koutini, Widmer, ICASSP 2023): published AudioSet taggers, also used as teachers.

The network is MobileNetV3-Large (Howard et al., ICCV 2019) over the log-mel of a whole clip. The weights come from a
published state dict. All published widths load, since the numbers of channels are those of the file's tensors. Each
batch-norm is folded into the convolution before it.
"""

from math import prod, sqrt
from pathlib import Path

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.config import CLASSES
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.taggers.kaldi import PREEMPHASIS, filterbank
from satpipe.sat.tensor_files import read_tensors
from torch import Tensor, nn
from torch.nn import functional as F

RATE_HZ = 32_000
HOP_SAMPLES = 320  # 10 ms
WINDOW_SAMPLES = 800  # 25 ms
FFT_SAMPLES = 1024
HIGHEST_HZ = 15_000.0
MIN_SAMPLES = FFT_SAMPLES // 2 + 2  # the minimum for reflect padding after pre-emphasis
_BATCH_NORM_EPS = 1e-3
_POWER_OFFSET = 1e-5

_RELU, _HARDSWISH = "relu", "hardswish"
# MobileNetV3-Large, Howard et al. 2019, Table 1: kernel, squeeze-excitation, activation, stride of each block.
_BLOCKS = (
    (3, False, _RELU, 1),
    (3, False, _RELU, 2), (3, False, _RELU, 1),
    (5, True, _RELU, 2), (5, True, _RELU, 1), (5, True, _RELU, 1),
    (3, False, _HARDSWISH, 2), (3, False, _HARDSWISH, 1), (3, False, _HARDSWISH, 1), (3, False, _HARDSWISH, 1),
    (3, True, _HARDSWISH, 1), (3, True, _HARDSWISH, 1),
    (5, True, _HARDSWISH, 2), (5, True, _HARDSWISH, 1), (5, True, _HARDSWISH, 1),
)  # fmt: skip
# Channels inside and after each block at width 1, the same table.
_WIDTHS = (
    (16, 16), (64, 24), (72, 24), (72, 40), (120, 40), (120, 40), (240, 80), (200, 80), (184, 80), (184, 80),
    (480, 112), (672, 112), (672, 160), (960, 160), (960, 160),
)  # fmt: skip


class EfficientAT(nn.Module):
    """A published EfficientAT network: waveforms of up to about 10 s to scores of the 527 classes."""

    def __init__(self, path: str | Path | None) -> None:
        """Read the published state dict `path`; without one, use random weights of the size of mn04_as.

        Raises:
            CheckpointError: The file is missing, or not a state dict of this network.
        """
        super().__init__()
        state = random_state() if path is None else read_tensors(Path(path))[0]
        # Not buffers: the front end stays in float32, whatever the precision of the network.
        self.window = torch.hann_window(WINDOW_SAMPLES, periodic=False)
        self.filterbank = filterbank(RATE_HZ, FFT_SAMPLES, 0.0, HIGHEST_HZ)  # the last bin, 16 kHz, is unused
        try:
            self.features = nn.Sequential(
                _Convolution(state, "features.0", 3, 2, _HARDSWISH),
                *(_Block(state, f"features.{index}.block", *shape) for index, shape in enumerate(_BLOCKS, start=1)),
                _Convolution(state, f"features.{len(_BLOCKS) + 1}", 1, 1, _HARDSWISH),
            )
            self.hidden = _linear(state, "classifier.2")
            self.out = _linear(state, "classifier.5")
        except KeyError as error:
            raise CheckpointError(f"{path} is not an EfficientAT network: it has no {error.args[0]}") from error
        if self.out.out_features != CLASSES:
            raise CheckpointError(f"{path} has {self.out.out_features} classes instead of AudioSet's {CLASSES}")
        self.requires_grad_(False).eval()

    def forward(self, waveform: Tensor) -> Tensor:
        """Tag waveforms.

        Shape:
            [B, n] samples at 32 kHz in -1 to 1, at least 514 -> scores [B, 527]
        """
        return torch.sigmoid(self.logits(waveform))

    def logits(self, waveform: Tensor) -> Tensor:
        """Return the scores before the sigmoid."""
        return self.network(self.log_mel(waveform).to(self.out.weight.dtype)).float()

    def network(self, log_mel: Tensor) -> Tensor:
        """Run the network without its front end.

        Shape:
            [B, 128, F] -> logits [B, 527]
        """
        x = self.features(log_mel[:, None].contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return self.out(F.hardswish(self.hidden(x)))  # type: ignore[no-any-return]

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Compute the input of the network, on the device of the waveforms.

        Shape:
            [B, n] -> [B, 128, (n - 1) // 320 + 1]
        """
        window, filters = self.window.to(waveform.device), self.filterbank.to(waveform.device)
        emphasised = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]
        margin = FFT_SAMPLES // 2
        padded = F.pad(emphasised, (margin, margin), mode="reflect")
        framed = padded.unfold(-1, FFT_SAMPLES, HOP_SAMPLES)
        edge = (FFT_SAMPLES - WINDOW_SAMPLES) // 2
        framed = framed[..., edge : edge + WINDOW_SAMPLES] * window  # the power does not depend on their position
        spectrum = torch.fft.rfft(framed, n=FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()
        mel: Tensor = power[..., :-1] @ filters
        return ((mel + _POWER_OFFSET).log() + 4.5).div(5.0).transpose(1, 2)


class _Convolution(nn.Module):
    """Convolution, batch-norm (folded into it), activation."""

    def __init__(self, state: dict[str, Tensor], name: str, kernel: int, stride: int, activation: str | None) -> None:
        super().__init__()
        weight = state[f"{name}.0.weight"].float()
        scale = state[f"{name}.1.weight"].float() / (state[f"{name}.1.running_var"].float() + _BATCH_NORM_EPS).sqrt()
        outputs, inputs = weight.shape[:2]
        groups = outputs if inputs == 1 and name != "features.0" else 1
        self.convolution = nn.Conv2d(inputs * groups, outputs, kernel, stride, (kernel - 1) // 2, groups=groups)
        with torch.no_grad():
            folded = weight * scale[:, None, None, None]
            self.convolution.weight = nn.Parameter(folded.contiguous(memory_format=torch.channels_last))
            self.convolution.bias.copy_(  # type: ignore[union-attr]
                state[f"{name}.1.bias"].float() - state[f"{name}.1.running_mean"].float() * scale
            )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        return _activate(self.convolution(x), self.activation)


class _SqueezeExcitation(nn.Module):
    """Weights the channels by a function of their means over frequency and time."""

    def __init__(self, state: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = _linear(state, f"{name}.fc1"), _linear(state, f"{name}.fc2")

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, C, H, W] -> [B, C, H, W]."""
        weights = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


class _Block(nn.Module):
    """Inverted residual: expansion, depthwise convolution, squeeze-excitation, projection."""

    def __init__(
        self, state: dict[str, Tensor], name: str, kernel: int, excite: bool, activation: str, stride: int
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        if not excite and f"{name}.2.0.weight" not in state:  # the first block has no expansion
            parts.append(_Convolution(state, f"{name}.0", kernel, stride, activation))
        else:
            parts.append(_Convolution(state, f"{name}.0", 1, 1, activation))
            parts.append(_Convolution(state, f"{name}.1", kernel, stride, activation))
        if excite:
            parts.append(_SqueezeExcitation(state, f"{name}.2.conc_se_layers.0"))
        last = _Convolution(state, f"{name}.{len(parts)}", 1, 1, None)
        first = parts[0]
        assert isinstance(first, _Convolution)
        self.parts = nn.Sequential(*parts, last)
        self.residual = stride == 1 and first.convolution.in_channels == last.convolution.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, in, H, W] -> [B, out, H / stride, W / stride]."""
        y: Tensor = self.parts(x)
        return x + y if self.residual else y


def _activate(x: Tensor, activation: str | None) -> Tensor:
    if activation == _RELU:
        return F.relu_(x)
    return F.hardswish(x, inplace=True) if activation == _HARDSWISH else x


def _linear(state: dict[str, Tensor], name: str) -> nn.Linear:
    weight = state[f"{name}.weight"].float()
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(state[f"{name}.bias"].float())
    return linear


def random_state(width: float = 0.4) -> dict[str, Tensor]:
    """Return a state dict with random weights in the published layout; `width` multiplies the channels."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / sqrt(max(1, prod(shape[1:])))

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        state[f"{name}.0.weight"] = tensor(outputs, inputs, kernel, kernel) * 1.2  # keeps scores away from 0 and 1
        state[f"{name}.1.weight"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{name}.1.bias"] = 0.1 * tensor(outputs)
        state[f"{name}.1.running_mean"] = 0.1 * tensor(outputs)
        state[f"{name}.1.running_var"] = torch.rand(outputs, generator=generator) + 0.5

    def linear(name: str, outputs: int, inputs: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = tensor(outputs, inputs), 0.1 * tensor(outputs)

    channels = _eights(16 * width)
    convolution("features.0", channels, 1, 3)
    for index, ((kernel, excite, _, _), (expanded, out)) in enumerate(zip(_BLOCKS, _WIDTHS, strict=True), start=1):
        name, wide, narrow, part = f"features.{index}.block", _eights(expanded * width), _eights(out * width), 0
        if expanded != 16:
            convolution(f"{name}.{part}", wide, channels, 1)
            part += 1
        convolution(f"{name}.{part}", wide, 1, kernel)
        part += 1
        if excite:
            linear(f"{name}.{part}.conc_se_layers.0.fc1", _eights(wide / 4), wide)
            linear(f"{name}.{part}.conc_se_layers.0.fc2", wide, _eights(wide / 4))
            part += 1
        convolution(f"{name}.{part}", narrow, wide, 1)
        channels = narrow
    convolution(f"features.{len(_BLOCKS) + 1}", 6 * channels, channels, 1)
    linear("classifier.2", round(1280 * width), 6 * channels)
    linear("classifier.5", CLASSES, round(1280 * width))
    return state


def _eights(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8 and at least nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class EfficientATTagger(Tagger):
    """EfficientAT as a tagger."""

    rate_hz = RATE_HZ
    needs_weights = True
    weights_example = "mn04_as_mAP_432.pt, of EfficientAT's releases on GitHub"
    model: EfficientAT

    def __init__(self, weights: Path | None) -> None:
        self.model = EfficientAT(weights)

    @property
    def front_end_device(self) -> torch.device:
        """The device of the model."""
        return self.device

    def features(self, waveforms: Tensor) -> Tensor:
        """Shape: [B, n] samples at 32 kHz -> [B, 128, F]."""
        return self.model.log_mel(waveforms)

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [B, 128, F] -> scores [B, 527]."""
        return torch.sigmoid(self.model.network(features).float())
