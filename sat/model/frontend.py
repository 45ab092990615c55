"""From waveforms to log-mel, whole or as a stream (paper section 4.3: 64 bands, 32 ms window, 10 ms hop, 16 kHz)."""

import torch
from satpipe.sat.model.config import CENTRE_SAMPLES, HOP_SAMPLES, MEL_BANDS, MIN_ROWS, SAMPLE_RATE_HZ, WINDOW_SAMPLES
from torch import Tensor, nn
from torch.nn import functional as F

MIN_SAMPLES = CENTRE_SAMPLES + 1  # the minimum for reflect padding
POWER_FLOOR = 1e-10  # digital silence is -100 dB
DYNAMIC_RANGE_DB = 120.0
BAND_GROUPS = 4  # of neighbouring bands, which need few of the bins: together a third of the whole product


def mel_filterbank() -> Tensor:
    """Return triangular filters on the HTK mel scale, 0 to 8000 Hz, with a peak of 1.

    Shape:
        [257, 64]: FFT bins by mel bands.
    """

    def hz_to_mel(hz: float) -> float:
        return 2595.0 * float(torch.log10(torch.tensor(1.0 + hz / 700.0, dtype=torch.float64)))

    nyquist_hz = SAMPLE_RATE_HZ / 2
    edges_mel = torch.linspace(hz_to_mel(0.0), hz_to_mel(nyquist_hz), MEL_BANDS + 2, dtype=torch.float64)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins_hz = torch.linspace(0.0, nyquist_hz, WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - low) / (centre - low)
    falling = (high - bins_hz[:, None]) / (high - centre)
    return torch.minimum(rising, falling).clamp_min(0.0).float()


def clamp_dynamic_range(log_mel: Tensor) -> Tensor:
    """Raise all values of an item to at least 120 dB below its maximum.

    Shape:
        [..., 64, F] -> [..., 64, F]; each leading index is one item, so that a score does not depend on its
        neighbours in a batch.
    """
    return log_mel.maximum(log_mel.amax(dim=(-2, -1), keepdim=True) - DYNAMIC_RANGE_DB)


class LogMel(nn.Module):
    """Log-mel spectrogram of centred frames, in dB, not yet clamped."""

    window: Tensor
    filterbank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)
        self.register_buffer("filterbank", mel_filterbank(), persistent=False)
        self._bins: list[slice] = []  # real and imaginary parts of the bins of each group
        for group, filters in enumerate(self.filterbank.split(MEL_BANDS // BAND_GROUPS, dim=1)):
            used = filters.any(dim=1).nonzero()
            begin, end = int(used[0]), int(used[-1]) + 1
            self._bins.append(slice(2 * begin, 2 * end))
            # Repeated for both parts: the filters also add a bin's two squares, which saves a memory pass.
            both = filters[begin:end].repeat_interleave(2, dim=0)
            self.register_buffer(f"_filters_{group}", both, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute all frames of whole waveforms, with reflect padding at both ends.

        Shape:
            [..., n] samples in -1 to 1 -> [..., 64, n // 160 + 1] dB

        Raises:
            ValueError: There are fewer than 257 samples, too few for reflect padding.
        """
        if waveform.shape[-1] < MIN_SAMPLES:
            raise ValueError(f"centred frames need at least {MIN_SAMPLES} samples, not {waveform.shape[-1]}")
        flat = waveform.reshape(-1, waveform.shape[-1])
        padded = F.pad(flat, (CENTRE_SAMPLES, CENTRE_SAMPLES), mode="reflect")
        return self.frames(padded).reshape(*waveform.shape[:-1], MEL_BANDS, -1)

    def frames(self, padded: Tensor) -> Tensor:
        """Compute the frames of samples that include the margins.

        Shape:
            [..., m] -> [..., 64, (m - 512) // 160 + 1]
        """
        framed = padded.unfold(-1, WINDOW_SAMPLES, HOP_SAMPLES) * self.window  # [..., F, 512]
        parts = torch.view_as_real(torch.fft.rfft(framed)).flatten(-2)  # [..., F, 514]: real, imaginary, real, ...
        count = parts.shape[-2]
        if count < MIN_ROWS:
            parts = F.pad(parts, (0, 0, 0, MIN_ROWS - count))
        power = parts.square_()
        groups = [power[..., bins] @ filters for bins, filters in zip(self._bins, self._filters(), strict=True)]
        mel = torch.cat(groups, dim=-1)[..., :count, :]  # [..., F, 64]
        log_mel: Tensor = mel.clamp_min_(POWER_FLOOR).log10_().mul_(10.0)
        return log_mel.transpose(-2, -1)

    def _filters(self) -> list[Tensor]:
        return [self.get_buffer(f"_filters_{group}") for group in range(BAND_GROUPS)]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU asynchronously, through pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class LogMelStream:
    """Computes the same frames from samples that arrive in blocks of any size.

    A stream can start inside a recording: with `inside=True`, the first 256 samples pushed are the left half of the
    first window, so that the first frame is centred on sample 256; they are not mirrored.
    """

    def __init__(self, log_mel: LogMel, *, inside: bool = False) -> None:
        self._log_mel = log_mel
        # Samples from the left edge of the next frame's window, on the device of the front end.
        self._pending = torch.empty(0, device=log_mel.window.device)
        self._mirrored = inside

    def push(self, samples: Tensor) -> Tensor:
        """Take samples and return the frames that are now complete.

        Shape:
            [n] -> [64, F] with F >= 0
        """
        self._pending = torch.cat([self._pending, samples])
        if not self._mirrored and len(self._pending) >= MIN_SAMPLES:
            left = self._pending[1:MIN_SAMPLES].flip(0)
            self._pending = torch.cat([left, self._pending])
            self._mirrored = True
        if not self._mirrored or len(self._pending) < WINDOW_SAMPLES:
            return torch.empty(MEL_BANDS, 0, device=self._pending.device)
        frames = self._log_mel.frames(self._pending)
        self._pending = self._pending[frames.shape[-1] * HOP_SAMPLES :].clone()
        return frames

    def finish(self) -> Tensor:
        """End the recording: mirror its end and return the last frames.

        Shape:
            [64, F]

        Raises:
            ValueError: Fewer than 257 samples were pushed.
        """
        if not self._mirrored or len(self._pending) < MIN_SAMPLES:
            raise ValueError(f"centred frames need at least {MIN_SAMPLES} samples")
        return self.push(self._pending[-MIN_SAMPLES:-1].flip(0))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the stream, for `load_state_dict`."""
        return {"pending": self._pending.clone(), "mirrored": torch.tensor(self._mirrored)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where the stream with this state stopped."""
        self._pending = state["pending"].clone()
        self._mirrored = bool(state["mirrored"])
