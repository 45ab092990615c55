"""What is asked of `satpipe synth`."""

import math
from dataclasses import dataclass
from pathlib import Path

from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

LEAST_SAMPLES = SAMPLE_RATE_HZ // 4  # of an event that the scene's end cuts
MOST_SCENES = 100_000  # their names have 5 digits: with 11 characters they pass for the YouTube ids of AudioSet


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
    """Make sure that options can work.

    Raises:
        ConfigError: They cannot.
    """
    low_db, high_db = options.snr_db
    numbers = (options.length_s, options.events_per_minute, low_db, high_db, options.background_db)
    if not all(map(math.isfinite, numbers)):
        raise ConfigError("an option is infinite or not a number")
    if not 1 <= options.scenes <= MOST_SCENES:
        raise ConfigError(f"--scenes {options.scenes:,}: {MOST_SCENES:,} are the most, and 1 is the least")
    if low_db > high_db:
        raise ConfigError(f"--snr-db {low_db:g} {high_db:g}: the lower one comes first")
    if options.samples < LEAST_SAMPLES:
        least_s = LEAST_SAMPLES / SAMPLE_RATE_HZ
        raise ConfigError(f"--length-s {options.length_s:g} is too short for any event: {least_s:g} is the least")
