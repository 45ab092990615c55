"""The options of `satpipe synth`."""

import math
from dataclasses import dataclass
from pathlib import Path

from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

LEAST_SAMPLES = SAMPLE_RATE_HZ // 4  # of an event that is cut by the scene's end
MOST_SCENES = 100_000  # names with 5 digits have 11 characters, as YouTube ids in AudioSet's lists do


@dataclass(frozen=True)
class SynthOptions:
    """Options of `satpipe synth`, as on its command line."""

    out: str | Path
    foreground: str
    background: str | None = None
    scenes: int = 100
    length_s: float = 10.0
    events_per_minute: float = 18.0
    snr_db: tuple[float, float] = (6.0, 20.0)
    background_db: float = -50.0
    max_polyphony: int | None = None
    seed: int = 0
    format: str = "wav"
    workers: int | None = None
    overwrite: bool = False

    @property
    def samples(self) -> int:
        """Length of a scene."""
        return round(self.length_s * SAMPLE_RATE_HZ)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.out)


def check(options: SynthOptions) -> None:
    """Check the options.

    Raises:
        ConfigError: An option is not valid.
    """
    low_db, high_db = options.snr_db
    numbers = (options.length_s, options.events_per_minute, low_db, high_db, options.background_db)
    if not all(map(math.isfinite, numbers)):
        raise ConfigError("options must be finite numbers")
    if not 1 <= options.scenes <= MOST_SCENES:
        raise ConfigError(f"--scenes must be from 1 to {MOST_SCENES:,}, not {options.scenes:,}")
    if low_db > high_db:
        raise ConfigError(f"--snr-db must be the lower and then the higher ratio, not {low_db:g} {high_db:g}")
    if options.samples < LEAST_SAMPLES:
        raise ConfigError(f"--length-s must be at least {LEAST_SAMPLES / SAMPLE_RATE_HZ:g}, not {options.length_s:g}")
