"""What is done to training examples (paper section 4.3), with random numbers from a generator that is given.

Waveforms are [B, n] at 16 kHz in -1 to 1, log-mel values [B, 64, F] in dB, labels [B, 527].
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sat.config import SAMPLE_RATE_HZ

_SILENT = 1e-5  # rms


def shift(waveforms: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn each waveform in a circle by a random length."""
    length = waveforms.shape[-1]
    begins = torch.from_numpy(rng.integers(0, length, len(waveforms)))
    return waveforms.gather(1, (torch.arange(length) + begins[:, None]) % length)


def gain(waveforms: Tensor, rng: np.random.Generator, most_db: float) -> Tensor:
    """Make each louder or softer by up to `most_db`."""
    return waveforms * torch.from_numpy(10 ** (rng.uniform(-most_db, most_db, (len(waveforms), 1)) / 20)).float()


def polarity(waveforms: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn half of them upside down."""
    return waveforms * torch.from_numpy(rng.choice([-1.0, 1.0], (len(waveforms), 1))).float()


def mixup(waveforms: Tensor, labels: Tensor, rng: np.random.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each with another one of the batch, and the labels likewise (Zhang et al., ICLR 2018)."""
    share = torch.from_numpy(rng.beta(alpha, alpha, (len(waveforms), 1))).float()
    other = torch.from_numpy(rng.permutation(len(waveforms)))
    mixed = share * waveforms + (1 - share) * waveforms[other]
    return mixed, share * labels + (1 - share) * labels[other]


def mask(log_mel: Tensor, rng: np.random.Generator, *, most_frames: int, most_bands: int) -> Tensor:
    """Replace a stripe of time and a stripe of bands with the item's mean (SpecAugment, Park et al. 2019)."""
    masked = log_mel.clone()
    for item in masked:
        mean = item.mean()
        for axis, most in ((1, most_frames), (0, most_bands)):
            size = item.shape[axis]
            width = int(rng.integers(0, min(most, size) + 1))
            start = int(rng.integers(0, size - width + 1))
            item.narrow(axis, start, width).fill_(mean)
    return masked


def speed(waveforms: Tensor, rng: np.random.Generator, share: float, most: float) -> Tensor:
    """Play a share of them faster or slower, by factors of up to e^most; the end is cut or silent."""
    length = waveforms.shape[-1]
    changed = waveforms.numpy().copy()
    for row in np.nonzero(rng.random(len(changed)) < share)[0]:
        factor = float(np.exp(rng.uniform(-most, most)))
        changed[row] = np.interp(np.arange(length) * factor, np.arange(length), changed[row], right=0.0)
    return torch.from_numpy(changed)


def colour(waveforms: Tensor, rng: np.random.Generator, *, equalised: float, reverberant: float) -> Tensor:
    """Give a share of them a random frequency response, and a share a room."""
    length = waveforms.shape[-1]
    spectrum = torch.fft.rfft(waveforms)
    points_db = rng.normal(0, 5, (len(waveforms), 1, 9)) * (rng.random((len(waveforms), 1, 1)) < equalised)
    points = torch.from_numpy(points_db).float()
    response_db = F.interpolate(points, size=spectrum.shape[-1], mode="linear", align_corners=True)[:, 0]
    spectrum = spectrum * 10 ** (response_db / 20)
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    for row in np.nonzero(rng.random(len(waveforms)) < reverberant)[0]:
        tail = rng.normal(size=length) * np.exp(-seconds * np.log(1000) / rng.uniform(0.15, 1.5))  # -60 dB
        tail *= rng.uniform(0.2, 1.0) / np.sqrt(np.square(tail).sum())
        tail[0] += 1.0
        spectrum[row] *= torch.fft.rfft(torch.from_numpy(tail).float())
    coloured: Tensor = torch.fft.irfft(spectrum, n=length)
    return coloured


def overlay(waveforms: Tensor, others: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Add to a share of them another sound, between 15 dB softer and 8 dB louder than they are."""
    ratio = 10 ** (rng.uniform(-15, 8, (len(waveforms), 1)) / 20) * (rng.random((len(waveforms), 1)) < share)
    return waveforms + torch.from_numpy(ratio).float() * others * (_rms(waveforms) / _rms(others))


def level(waveforms: Tensor, rng: np.random.Generator, spread_db: float) -> Tensor:
    """Change the loudness by a normally distributed gain, never beyond full scale."""
    factor = torch.from_numpy(10 ** (rng.normal(-2, spread_db, (len(waveforms), 1)) / 20)).float()
    return waveforms * torch.minimum(factor, 1 / (waveforms.abs().amax(1, keepdim=True) + 1e-6))


def noise(count: int, length: int, rng: np.random.Generator) -> Tensor:
    """Noise from white to brown, full scale.

    Shape:
        [count, length]
    """
    frequency = np.maximum(np.fft.rfftfreq(length), 1 / length)
    spectrum = np.fft.rfft(rng.normal(size=(count, length))) * frequency ** -rng.uniform(0, 1, (count, 1))
    waveforms = np.fft.irfft(spectrum, n=length)
    return torch.from_numpy(waveforms / np.abs(waveforms).max(1, keepdims=True)).float()


def _rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(1, keepdim=True).sqrt() + _SILENT
