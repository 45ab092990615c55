"""`satpipe formula-audio`: sounds made by formula, for the training of the bundled model.

OUT/audio/FAMILY_NUMBER.flac  10 s, 16 kHz mono
OUT/manifest.tsv              path, family, split

Noise-like sounds (wind, rain, waves, fire, engines) differ in spectrum and modulation, of which a small corpus contains
few. Each family draws both at random. The clips have no labels: the teacher says what they sound like.
"""

from pathlib import Path

import numpy as np
import soundfile
from satpipe.jobs.train.extra_audio import write_manifest
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.training.formula import FAMILIES

CLIP_S = 10.0
_PEAK = 0.7
_QUIETEST_DB = -24.0


def make(out: Path, clips: int, seed: int = 0) -> None:
    """Write clips, from each family in turn; the same seed gives the same clips.

    Args:
        out: Folder of the set, which `satpipe train-bundled --extra` reads.
        clips: Number of clips.
        seed: Seed of the random numbers.
    """
    (out / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(clips):
        family = list(FAMILIES)[number % len(FAMILIES)]
        rng = np.random.default_rng((seed, number))
        samples = FAMILIES[family](rng, round(CLIP_S * SAMPLE_RATE_HZ))
        samples *= _PEAK * 10 ** (rng.uniform(_QUIETEST_DB, 0) / 20) / (np.abs(samples).max() + 1e-9)
        path = f"{family}_{number:05}.flac"
        soundfile.write(out / "audio" / path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        rows.append({"path": path, "family": family, "split": "train"})
    write_manifest(out, rows)
