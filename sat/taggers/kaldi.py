"""Log-mel as Kaldi computes it (https://kaldi-asr.org/doc/feat.html), as used by AST, BEATs and EfficientAT."""

import torch
from torch import Tensor

MEL_BANDS = 128
WINDOW_SAMPLES = 400  # 25 ms at 16 kHz
HOP_SAMPLES = 160
FFT_SAMPLES = 512
PREEMPHASIS = 0.97
POWER_FLOOR = 2.0**-23


def filterbank(rate_hz: int, fft_samples: int, low_hz: float, high_hz: float) -> Tensor:
    """Return triangular filters, linear in mel = 1127 ln(1 + f / 700), with a peak of 1.

    Shape:
        [fft_samples / 2, 128]: FFT bins without the last one, by mel bands.
    """

    def hz_to_mel(hz: Tensor) -> Tensor:
        return 1127.0 * (1.0 + hz / 700.0).log()

    low, high = hz_to_mel(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    edges = low + (high - low) / (MEL_BANDS + 1) * torch.arange(MEL_BANDS + 2, dtype=torch.float64)
    bins = hz_to_mel(torch.arange(fft_samples // 2, dtype=torch.float64) * (rate_hz / fft_samples))[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp_min(0.0).float()


class LogMel:
    """Natural logarithm of 128 mel bands from 20 to 8,000 Hz, in whole frames of 25 ms every 10 ms at 16 kHz."""

    def __init__(self) -> None:
        self._window = torch.hann_window(WINDOW_SAMPLES, periodic=False).pow(0.85)  # Kaldi's "Povey" window
        self._filterbank = filterbank(16_000, FFT_SAMPLES, 20.0, 8_000.0)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Compute the frames of waveforms scaled to the range of 16-bit integers.

        Shape:
            [B, n] with n at least 400 -> [B, (n - 400) // 160 + 1, 128]
        """
        frames = waveforms.unfold(-1, WINDOW_SAMPLES, HOP_SAMPLES)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * self._window, n=FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()
        mel: Tensor = power[..., :-1] @ self._filterbank
        return mel.clamp_min(POWER_FLOOR).log()
