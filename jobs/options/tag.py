"""Options of `satpipe tag` and `satpipe stream`."""

import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from satpipe.pipeline.live.source import MAX_LAG_S, SourceOptions
from satpipe.pipeline.option import OUT, OUT_VARIABLE, Option, Options
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import BUNDLED, CLASSES, Combine, Cut, Precision

CHANNELS = "mix: mean of all channels; split: each as a separate recording; N: only channel N, counted from 1."
MODEL = "See `satpipe models`; for ast, beats, efficientat, htsat or another registered tagger, add its weights."

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Options of the model."""

    model: Annotated[str, Option(MODEL, metavar="NAME|PATH|NAME:WEIGHTS")] = BUNDLED
    arch: Annotated[
        str | None, Option("Configuration of the model, if its file does not name one.", metavar="NAME")
    ] = None
    cut: Annotated[
        Cut, Option("Chunking mode. gapless: every sample is used; script: as in the published inference script.")
    ] = "gapless"
    memory: Annotated[
        Literal["on", "off"], Option("off: tag each chunk alone, with nothing carried over from the previous one.")
    ] = "on"
    delay_s: Annotated[
        float | None,
        Option(
            "Seconds that a full-context model or another tagger reads per chunk; by default the model's own.",
            flags=("--delay-s", "--delay"),
        ),
    ] = None
    grids: Annotated[
        int,
        Option(
            "Read a recording N times, each 1/N of a chunk later, for rows of 1/N of a chunk; takes N times as long.",
            minimum=1,
            metavar="N",
        ),
    ] = 1
    combine: Annotated[Combine, Option("How grids are combined. sharp: onsets are more exact, and scores lower.")] = (
        "geometric"
    )
    precision: Annotated[
        Precision,
        Option("Number format of the model. auto: the fastest on this machine, which is kept when the run continues."),
    ] = "fp32"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: A value is not allowed, or options contradict each other.
        """
        super().__post_init__()
        if self.grids > 1 and self.cut == "script":
            raise ConfigError("--grids needs one spectrogram of the whole recording: omit --cut script")
        if self.grids == 1 and self.combine != "geometric":
            raise ConfigError(f"--combine {self.combine} needs --grids 2 or more")


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Options):
    """Options of the workers."""

    workers: Annotated[
        int | None,
        Option("Maximum number of workers; by default one per CPU, or up to 8 per GPU.", minimum=1),
    ] = None
    address: Annotated[
        str | None, Option("Address of a running Ray cluster; by default Ray is started here for the run.")
    ] = None


@dataclass(frozen=True)
class TagOptions(ClusterOptions, ModelOptions):
    """Options of `satpipe tag`."""

    inputs: tuple[str, ...]
    out: Annotated[
        str | Path,
        Option("Output folder, or s3://bucket/folder.", metavar="DIR", flags=("-o", "--out"), variable=OUT_VARIABLE),
    ] = OUT
    threshold: Annotated[float, Option("Minimum score of a row in the tags table.", minimum=0, maximum=1)] = 0.1
    top_k: Annotated[int, Option("Maximum number of rows per chunk in the tags table.", minimum=1, maximum=CLASSES)] = (
        10
    )
    scores: Annotated[bool, Option("Write all 527 scores of each chunk.")] = True
    embeddings: Annotated[
        bool,
        Option(
            "Also write the embedding of each chunk, for `search` and own classes; a folder that has embeddings keeps "
            "getting them."
        ),
    ] = False
    own_classes: Annotated[
        str | Path | None,
        Option("Also score own classes, from a file of `satpipe learn`; implies --embeddings.", metavar="FILE"),
    ] = None
    channels: Annotated[str, Option(CHANNELS, metavar="mix|split|N")] = "mix"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Where the model runs.")] = "auto"
    span_s: Annotated[
        float | None,
        Option(
            "Maximum seconds of a long recording that one worker tags in one go; by default ten minutes, or longer to "
            "give each worker an equal part. Does not affect scores.",
            minimum=10,
        ),
    ] = None
    max_batch_memory: Annotated[
        str | None, Option("Maximum memory for one batch of a worker's model, such as 256MB.", metavar="SIZE")
    ] = None
    time_zone: Annotated[
        str | None,
        Option("Time zone of start times that state none, such as Europe/Berlin; by default UTC.", metavar="ZONE"),
    ] = None
    time_pattern: Annotated[
        str | None,
        Option(
            "Form of file names that contain the start time, such as `rec-%d%m%y-%H%M*`; by default detected.",
            metavar="PATTERN",
        ),
    ] = None
    times: Annotated[
        str | Path | None,
        Option("Start times: columns recording, time[, end_time]; overrides file names and headers.", metavar="CSV"),
    ] = None
    clock_marks: Annotated[
        str | Path | None,
        Option("Corrections of recorders' clocks: columns recordings, recorded_time, true_time.", metavar="CSV"),
    ] = None
    join: Annotated[bool, Option("Read consecutive files of a recorder as one recording.")] = False
    join_gap_s: Annotated[
        float,
        Option("Maximum gap or overlap in seconds between consecutive files.", minimum=0),
    ] = 2.0  # names are rounded to the second, and recorders need a moment to change files
    since: Annotated[
        str | date | None,
        Option(
            "Tag only recordings that start at this date or time or later, in UTC unless it has a time zone.",
            metavar="TIME",
        ),
    ] = None
    until: Annotated[
        str | date | None, Option("Tag only recordings that start before this date or time.", metavar="TIME")
    ] = None
    prune: Annotated[bool, Option("Remove the rows of recordings whose files no longer exist.")] = False
    retry_failed: Annotated[bool, Option("Tag recordings again that were not tagged from start to end.")] = False
    overwrite: Annotated[bool, Option("First remove the tables in the output folder.")] = False
    log_format: Annotated[
        Literal["text", "json"],
        Option(
            "Form of what is written to standard error. json: a line of JSON for the start and the end of the run, for "
            "each recording and for each message."
        ),
    ] = "text"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: A value is not allowed, or options contradict each other.
        """
        super().__post_init__()
        if self.join and self.by_time:
            raise ConfigError("--join needs all files of a recorder: leave out --since and --until")

    @property
    def by_time(self) -> bool:
        """True if only recordings of some time are tagged."""
        return self.since is not None or self.until is not None


@dataclass(frozen=True, kw_only=True)
class StatusOptions(Options):
    """Options of `satpipe status`."""

    max_age: Annotated[
        str | None,
        Option(
            "Exit with 4 if the last run finished longer ago, or is running without progress for so long: 90s, 30m, "
            "26h or 2d.",
            metavar="DURATION",
        ),
    ] = None
    max_age_s: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: The duration is not one.
        """
        super().__post_init__()
        if self.max_age is not None:
            given = _DURATION.fullmatch(self.max_age.strip())
            if given is None:
                raise ConfigError(
                    f"--max-age must be a number with a unit, such as 90s, 30m, 26h or 2d, not '{self.max_age}'"
                )
            object.__setattr__(self, "max_age_s", float(given[1]) * _UNIT_S[given[2]])


@dataclass(frozen=True, kw_only=True)
class CommandOptions(Options):
    """Options of `satpipe tag` that a function does not need."""

    dry_run: Annotated[bool, Option("Print the plan only; tag nothing.")] = False
    quiet: Annotated[bool, Option("Print errors only.", flags=("-q", "--quiet"))] = False


@dataclass(frozen=True)
class StreamOptions(SourceOptions, ModelOptions):
    """Options of `satpipe stream`."""

    sources: tuple[str, ...] = ()
    max_lag_s: Annotated[
        float, Option("Seconds that live audio may wait for the model before it is dropped.", minimum=0, above=True)
    ] = MAX_LAG_S
    threshold: Annotated[float, Option("Minimum score of a tag.", minimum=0, maximum=1)] = 0.1
    top_k: Annotated[int, Option("Maximum number of tags per chunk.", minimum=1, maximum=CLASSES)] = 10
    scores: Annotated[bool, Option("Also print all 527 scores of each chunk.")] = False
    embeddings: Annotated[bool, Option("Also print the embedding of each chunk.")] = False
    own_classes: Annotated[
        str | Path | None,
        Option("Also print the tags of own classes, from a file of `satpipe learn`.", metavar="FILE"),
    ] = None
