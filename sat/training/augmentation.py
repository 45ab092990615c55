"""Augmentation of training examples (paper section 4.3) with random numbers from a given generator.

Waveforms are [B, n] at 16 kHz in -1 to 1, log-mel values [B, 64, F] in dB, labels [B, 527]. All functions work on the
device of their input. The parameters of each item come from the NumPy generator `rng`; noise comes from a torch
generator on the device, which `rng` seeds.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from torch import Tensor
from torch.nn import functional as F

_SILENT = 1e-5  # rms


def shift(waveforms: Tensor, rng: np.random.Generator) -> Tensor:
    """Rotate each waveform by a random number of samples."""
    length = waveforms.shape[-1]
    begins = torch.from_numpy(rng.integers(0, length, (len(waveforms), 1))).to(waveforms.device)
    return waveforms.gather(1, (torch.arange(length, device=waveforms.device) + begins) % length)


def gain(waveforms: Tensor, rng: np.random.Generator, max_db: float) -> Tensor:
    """Change the level of each waveform by up to `max_db`."""
    return waveforms * _like(waveforms, 10 ** (rng.uniform(-max_db, max_db, (len(waveforms), 1)) / 20))


def polarity(waveforms: Tensor, rng: np.random.Generator) -> Tensor:
    """Invert the polarity of half of the waveforms."""
    return waveforms * _like(waveforms, rng.choice([-1.0, 1.0], (len(waveforms), 1)))


def mixup(waveforms: Tensor, labels: Tensor, rng: np.random.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each waveform and its labels, [B, ...], with another one of the batch (Zhang et al., ICLR 2018)."""
    share = _like(waveforms, rng.beta(alpha, alpha, (len(waveforms), 1)))
    other = torch.from_numpy(rng.permutation(len(waveforms))).to(waveforms.device)
    mixed = share * waveforms + (1 - share) * waveforms[other]
    share = share.view(-1, *(1,) * (labels.ndim - 1))
    return mixed, share * labels + (1 - share) * labels[other]


def mask(log_mel: Tensor, rng: np.random.Generator, *, frames: int, bands: int, fixed: bool = True) -> Tensor:
    """Replace a range of frames and a range of bands with the item's mean (SpecAugment, Park et al. 2019).

    Args:
        log_mel: [B, 64, F].
        rng: Source of random numbers.
        frames: Width of the range of frames; at most all of an item's are replaced.
        bands: Width of the range of bands.
        fixed: True: all ranges have these widths; False: widths are drawn uniformly from 0 to these.
    """
    items, all_bands, all_frames = log_mel.shape
    hidden = torch.zeros(1, dtype=torch.bool, device=log_mel.device)
    for axis, size, most in ((2, all_frames, min(frames, all_frames)), (1, all_bands, min(bands, all_bands))):
        widths = np.full(items, most) if fixed else rng.integers(0, most + 1, items)
        starts = rng.integers(0, size - widths + 1)
        places = torch.arange(size, device=log_mel.device)
        first, end = torch.from_numpy(np.stack([starts, starts + widths])[..., None]).to(log_mel.device)
        hidden = hidden | ((places >= first) & (places < end)).unsqueeze(3 - axis)
    return torch.where(hidden, log_mel.mean((1, 2), keepdim=True), log_mel)


def speed(waveforms: Tensor, rng: np.random.Generator, share: float, most: float) -> Tensor:
    """Play a share of the waveforms faster or slower by factors of up to e^most; the end is cut or padded."""
    length = waveforms.shape[-1]
    rows = _some(waveforms, rng, share)
    factors = torch.from_numpy(np.exp(rng.uniform(-most, most, (len(rows), 1)))).to(waveforms.device)
    changed = waveforms.clone()
    places = torch.arange(length, device=waveforms.device) * factors  # in double precision: positions between samples
    before = places.long()
    chosen = F.pad(waveforms[rows], (0, 1))
    left, right = chosen.gather(1, before.clamp(max=length)), chosen.gather(1, (before + 1).clamp(max=length))
    changed[rows] = torch.lerp(left, right, (places - before).float())
    return changed


def colour(waveforms: Tensor, rng: np.random.Generator, *, equalised: float, reverberant: float) -> Tensor:
    """Apply a random frequency response to a share of the waveforms, and a room's reverberation to another share."""
    length = waveforms.shape[-1]
    spectrum = torch.fft.rfft(waveforms)
    points_db = rng.normal(0, 5, (len(waveforms), 1, 9)) * (rng.random((len(waveforms), 1, 1)) < equalised)
    points = _like(waveforms, points_db)
    response_db = F.interpolate(points, size=spectrum.shape[-1], mode="linear", align_corners=True)[:, 0]
    spectrum *= 10 ** (response_db / 20)
    rows = _some(waveforms, rng, reverberant)
    if len(rows):
        decay_s, wet = (_like(waveforms, rng.uniform(*most, (len(rows), 1))) for most in ((0.15, 1.5), (0.2, 1.0)))
        seconds = torch.arange(length, device=waveforms.device) / SAMPLE_RATE_HZ
        tails = _normal(waveforms, rng, len(rows)) * torch.exp(-seconds * math.log(1000) / decay_s)  # -60 dB
        tails *= wet / tails.square().sum(1, keepdim=True).sqrt()
        tails[:, 0] += 1.0
        spectrum[rows] *= torch.fft.rfft(tails)
    coloured: Tensor = torch.fft.irfft(spectrum, n=length)
    return coloured


def overlay(waveforms: Tensor, others: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Add another sound to a share of the waveforms, at a level of -15 to +8 dB relative to theirs."""
    ratio = 10 ** (rng.uniform(-15, 8, (len(waveforms), 1)) / 20) * (rng.random((len(waveforms), 1)) < share)
    return waveforms + _like(waveforms, ratio) * others * (_rms(waveforms) / _rms(others))


def level(waveforms: Tensor, rng: np.random.Generator, spread_db: float) -> Tensor:
    """Apply a normally distributed gain in dB, limited to full scale."""
    factor = _like(waveforms, 10 ** (rng.normal(-2, spread_db, (len(waveforms), 1)) / 20))
    return waveforms * torch.minimum(factor, 1 / (waveforms.abs().amax(1, keepdim=True) + 1e-6))


def noise(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Return noise from white to brown at full scale, in the shape of the waveforms `like`."""
    count, length = like.shape
    frequency = torch.arange(length // 2 + 1, device=like.device).clamp(min=1) / length
    spectrum = torch.fft.rfft(_normal(like, rng, count)) * frequency ** -_like(like, rng.uniform(0, 1, (count, 1)))
    waveforms: Tensor = torch.fft.irfft(spectrum, n=length)
    return waveforms / waveforms.abs().amax(1, keepdim=True)


def _like(tensor: Tensor, numbers: npt.NDArray[np.float64]) -> Tensor:
    """Return the numbers as a tensor of the same type and device."""
    return torch.from_numpy(numbers).to(tensor)


def _some(tensor: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Return the indices of a random selection of the items, each chosen with probability `share`."""
    return torch.from_numpy(np.nonzero(rng.random(len(tensor)) < share)[0]).to(tensor.device)


def _normal(like: Tensor, rng: np.random.Generator, count: int) -> Tensor:
    """Return normally distributed noise, [count, n]."""
    generator = torch.Generator(like.device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(count, like.shape[-1], device=like.device, generator=generator)


def _rms(waveforms: Tensor) -> Tensor:
    return waveforms.square().mean(1, keepdim=True).sqrt() + _SILENT
