"""EfficientAT's MobileNets: published AudioSet taggers that serve as teachers (Schmid, Koutini, Widmer, ICASSP 2023).

The network is MobileNetV3-Large (Howard et al., ICCV 2019) over the log-mel of a whole clip. The weights are not ours:
they are read from a file of the published state dict; any of the published widths loads, since the number of channels
is that of the file's tensors. Batch-norms are folded into the convolutions before them.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sat.checkpoint import sha256_of
from sat.config import CLASSES
from sat.errors import CheckpointError

RATE_HZ = 32_000
HOP_SAMPLES = 320  # 10 ms
WINDOW_SAMPLES = 800  # 25 ms
FFT_SAMPLES = 1024
MEL_BANDS = 128
HIGHEST_HZ = 15_000.0
PREEMPHASIS = 0.97
MIN_SAMPLES = FFT_SAMPLES // 2 + 2  # what reflect padding needs after pre-emphasis
LONGEST_S = 10.0
"""Length of the clips it was trained on."""
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


class EfficientAT(nn.Module):
    """A published EfficientAT tagger: waveforms of at most about 10 s to scores of the 527 classes.

    Attributes:
        sha256: Of the file of weights.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, path: str | Path) -> None:
        """Read the published state dict `path`.

        Raises:
            CheckpointError: There is no such file, or it is not a state dict of this network.
        """
        super().__init__()
        path = Path(path)
        state = _read(path)
        self.sha256 = sha256_of(path)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES, periodic=False), persistent=False)
        self.register_buffer("filterbank", kaldi_filterbank(), persistent=False)
        try:
            self.features = nn.Sequential(
                _Convolution(state, "features.0", 3, 2, _HARDSWISH),
                *(_Block(state, f"features.{index}.block", *shape) for index, shape in enumerate(_BLOCKS, start=1)),
                _Convolution(state, f"features.{len(_BLOCKS) + 1}", 1, 1, _HARDSWISH),
            )
            self.hidden = _linear(state, "classifier.2")
            self.out = _linear(state, "classifier.5")
        except KeyError as error:
            raise CheckpointError(f"{path} is no EfficientAT network: it has no {error.args[0]}") from error
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
        """The same before the sigmoid."""
        x = self.log_mel(waveform)[:, None].to(self.out.weight.dtype)
        x = self.features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return self.out(F.hardswish(self.hidden(x))).float()  # type: ignore[no-any-return]

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Compute what the network reads.

        Shape:
            [B, n] -> [B, 128, (n - 1) // 320 + 1]
        """
        emphasised = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]
        margin = FFT_SAMPLES // 2
        padded = F.pad(emphasised, (margin, margin), mode="reflect")
        framed = padded.unfold(-1, FFT_SAMPLES, HOP_SAMPLES)
        edge = (FFT_SAMPLES - WINDOW_SAMPLES) // 2
        framed = framed[..., edge : edge + WINDOW_SAMPLES] * self.window  # the power does not tell where they lie
        spectrum = torch.fft.rfft(framed, n=FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()
        mel: Tensor = power[..., :-1] @ self.filterbank  # the last bin, 16 kHz, is unused
        return ((mel + _POWER_OFFSET).log() + 4.5).div(5.0).transpose(1, 2)


def kaldi_filterbank() -> Tensor:
    """Triangular filters as Kaldi defines them: linear in mel = 1127 ln(1 + f / 700), 0 to 15,000 Hz, peak 1.

    Shape:
        [512, 128]: FFT bins but the last, by mel bands.
    """

    def hz_to_mel(hz: Tensor) -> Tensor:
        return 1127.0 * (1.0 + hz / 700.0).log()

    low, high = hz_to_mel(torch.tensor([0.0, HIGHEST_HZ], dtype=torch.float64))
    edges = low + (high - low) / (MEL_BANDS + 1) * torch.arange(MEL_BANDS + 2, dtype=torch.float64)
    bins = hz_to_mel(torch.arange(FFT_SAMPLES // 2, dtype=torch.float64) * (RATE_HZ / FFT_SAMPLES))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp_min(0.0).float()


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
    """Weighs the channels by what the mean over frequency and time says."""

    def __init__(self, state: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = _linear(state, f"{name}.fc1"), _linear(state, f"{name}.fc2")

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, C, H, W] -> [B, C, H, W]."""
        weights = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


class _Block(nn.Module):
    """Inverted residual: widen, depthwise convolution, squeeze-excitation, narrow."""

    def __init__(
        self, state: dict[str, Tensor], name: str, kernel: int, excite: bool, activation: str, stride: int
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        if not excite and f"{name}.2.0.weight" not in state:  # the first block is as wide inside as outside
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


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict")
    return state
