"""Options of `satpipe synth` and `satpipe benchmark`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from satpipe.pipeline.option import Option, Options
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

Device = Literal["cpu", "cuda"]
MIN_SAMPLES = SAMPLE_RATE_HZ // 4  # minimum length of an event that the end of the scene cuts off


@dataclass(frozen=True)
class SynthOptions(Options):
    """Options of `satpipe synth`."""

    out: Annotated[
        str | Path,
        Option("Output folder: a new one, or that of an earlier `synth`.", metavar="DIR", flags=("-o", "--out")),
    ]
    foreground: Annotated[
        str,
        Option(
            "Clips of single sounds: sub-folders named after labels, or a table with path, label[, onset_s, offset_s].",
            metavar="FOLDER|TABLE",
        ),
    ]
    background: Annotated[
        str | None, Option("Recordings to put the clips over; by default white noise.", metavar="FOLDER")
    ] = None
    # Names of scenes have 5 digits: with 11 characters they match the YouTube ids of AudioSet.
    scenes: Annotated[int, Option("Number of scenes.", minimum=1, maximum=100_000)] = 100
    length_s: Annotated[float, Option("Length of each scene in seconds.", minimum=MIN_SAMPLES / SAMPLE_RATE_HZ)] = 10.0
    events_per_minute: Annotated[float, Option("Mean number of events per minute.", minimum=0)] = 18.0
    snr_db: Annotated[tuple[float, float], Option("Range of signal-to-noise ratios of the events, in dB.")] = (
        6.0,
        20.0,
    )
    background_db: Annotated[float, Option("Level of the background in dBFS.", minimum=-80, maximum=-10)] = -50.0
    max_polyphony: Annotated[
        int | None, Option("Maximum number of simultaneous events; by default no limit.", minimum=1)
    ] = None
    seed: Annotated[int, Option("Random seed.", minimum=0, maximum=2**32 - 1)] = 0
    format: Annotated[Literal["wav", "flac"], Option("Audio format of the scenes.")] = "wav"
    workers: Annotated[
        int | None, Option("Maximum number of threads; by default one per CPU, up to 16.", minimum=1)
    ] = None
    overwrite: Annotated[bool, Option("Replace the scenes of an earlier `synth`.")] = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: An option cannot work.
        """
        super().__post_init__()
        low_db, high_db = self.snr_db
        if not -math.inf < low_db <= high_db < math.inf:
            raise ConfigError(f"--snr-db must be the lower and then the higher ratio, not {low_db:g} {high_db:g}")

    @property
    def samples(self) -> int:
        """Length of a scene."""
        return round(self.length_s * SAMPLE_RATE_HZ)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.out)


@dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Options of `satpipe benchmark tag`."""

    hours: Annotated[float, Option("Length of the recording in hours.", minimum=0.1)] = 1.0
    device: Annotated[Device, Option("Where the model runs.")] = "cpu"


@dataclass(frozen=True)
class ConsistencyRunOptions(Options):
    """Options of `satpipe benchmark consistency`."""

    labels: Annotated[tuple[str, ...], Option("Classes to compare, one for each sound.", metavar="LABEL")] = (
        "Bird",
        "Vehicle",
    )
    minutes: Annotated[float, Option("Length in minutes to which each sound is repeated.", minimum=0.1)] = 10.0
    full_context: Annotated[
        str | None, Option("Weights of a full-context model to compare, reading 10 s and 2 s.", metavar="WEIGHTS")
    ] = None
    work: Annotated[Path, Option("Folder for recordings and tables; its content is replaced.", metavar="DIR")] = Path(
        "build/consistency"
    )


@dataclass(frozen=True)
class GridsBenchmarkOptions(Options):
    """Options of `satpipe benchmark grids`."""

    scenes: Annotated[int, Option("Number of scenes of 20 s to report on, and to choose thresholds on.", minimum=1)] = (
        60
    )
    teacher: Annotated[str | None, Option("EfficientAT's weights, to measure it as well.", metavar="WEIGHTS")] = None
    work: Annotated[Path, Option("Folder for scenes.", metavar="DIR")] = Path("build/grids")


@dataclass(frozen=True)
class BundledFiguresOptions(Options):
    """Options of `satpipe benchmark bundled`."""

    teacher: Annotated[str, Option("EfficientAT's weights.")]
    extra: Annotated[Path, Option("Folder of `satpipe extra-audio`; its held-out clips are evaluated.", metavar="DIR")]
    training: Annotated[Path, Option("Folder of `satpipe train-bundled`.", metavar="DIR")] = Path("build/train-bundled")
    other: Annotated[str | None, Option("Also measure these weights, under the name `other`.")] = None
