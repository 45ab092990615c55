"""A tagger plugin: the level decides between "Noise" and "Silence". See reports/docs/howto/other-taggers.md."""

from pathlib import Path

import torch
from satpipe.sat.labels import find, weak_labels
from satpipe.sat.taggers.interface import Tagger
from torch import Tensor


class Loudness(Tagger):
    """Uses no network; its weights are an optional file with the level in dB at which both scores are 0.5."""

    rate_hz = 22_050
    delay_s = 1.0
    mids = tuple(sorted(label.mid for label in weak_labels()))  # all 527, in any order

    def __init__(self, weights: Path | None) -> None:
        self.half_db = float(weights.read_text()) if weights else -40.0

    def forward(self, waveforms: Tensor) -> Tensor:
        """Shape: [B, n] samples at 22,050 Hz -> scores [B, 527], in the order of `mids`."""
        over_db = 10 * waveforms.square().mean(1).clamp_min(1e-10).log10() - self.half_db
        scores = torch.zeros(len(waveforms), len(self.mids))
        scores[:, self.mids.index(find("Noise").mid)] = torch.sigmoid(over_db / 6)
        scores[:, self.mids.index(find("Silence").mid)] = torch.sigmoid(-over_db / 6)
        return scores
