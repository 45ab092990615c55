"""Options of `satpipe evaluate`, `events` and `report`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from satpipe.pipeline.option import Option, Options, declared
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import Key

if TYPE_CHECKING:
    from satpipe.pipeline.tables.selection import Selection

Unknown = Literal["error", "skip"]
"""Treatment of an unknown label: raise an error, or skip and count it."""
EXACT = "exact"
"""Value of `psds_thresholds`: all thresholds at which anything changes."""
AUDIOSET = "audioset"
"""Value of `weak` and `strong`: AudioSet's own labels of its evaluation set."""

BY = HOUR, DAY, RECORDING, FOLDER, LABEL = ("hour", "day", "recording", "folder", "label")
"""The values by which the rows of an activity table differ, besides classes and groups."""
DEFAULT_THRESHOLD = 0.5
"""Minimum score of what counts as found, in `events`, `activity`, `report` and other commands on results."""

Labels = Annotated[
    Key | Iterable[Key] | None,
    Option(
        "Only these classes, by name or mid; under:NAME selects a class and all below it in the ontology.",
        metavar="LABEL[,LABEL]",
    ),
]
GroupNames = Annotated[
    str | Iterable[str] | None,
    Option(
        "Group of classes with one score, their maximum: a name of `satpipe labels`, or a class and all below it.",
        metavar="NAME[,NAME]",
    ),
]
GroupsFile = Annotated[
    str | Path | None,
    Option("Table of your own groups, columns group and label; without --group, all of them are used.", metavar="FILE"),
]
OwnNames = Annotated[
    str | Iterable[str] | None,
    Option("Own classes: the name of their table (`satpipe classify`), or TABLE/CLASS.", metavar="NAME"),
]
Recordings = Annotated[
    str | Iterable[str] | None, Option("Only these recordings; a pattern such as `site1/*` is allowed.", metavar="NAME")
]
Threshold = Annotated[
    float | str | Path | None,
    Option(
        "Minimum peak score of an event, or a file of thresholds, see `verify` and `evaluate --tune`; by default 0.5, "
        "and for own classes the thresholds in their file.",
        metavar="S|FILE",
    ),
]
"""A number, a file of thresholds (JSON), or a table with the columns label and threshold."""


@dataclass(frozen=True, kw_only=True)
class PartOptions(Options):
    """Options that select recordings and times of an output folder."""

    recordings: Recordings = None
    since: Annotated[
        str | date | None,
        Option("Only what ends after this date or time, in UTC unless it has a time zone.", metavar="TIME"),
    ] = None
    until: Annotated[str | date | None, Option("Only what starts before this date or time.", metavar="TIME")] = None


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(PartOptions):
    """Options that select part of an output folder."""

    labels: Labels = None
    group: GroupNames = None
    groups: GroupsFile = None
    own: OwnNames = None

    @property
    def selection(self) -> "Selection":
        """The part of the folder."""
        from satpipe.pipeline.tables.selection import Selection  # takes long to import

        return Selection(
            self.recordings, self.labels, self.group, self.groups, since=self.since, until=self.until, own=self.own
        )


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Options of `satpipe evaluate`."""

    weak: Annotated[
        str | Path | bool | None,
        Option(
            "Weak labels: a table with a header; without a value, AudioSet's own, which come with satpipe.",
            metavar="[CSV]",
            bare=AUDIOSET,
        ),
    ] = None
    strong: Annotated[
        str | Path | bool | None,
        Option(
            "Strong labels: files of DCASE, Audacity, Raven, ...; without a value, AudioSet's own, see `labels pull`.",
            metavar="[TSV|FOLDER]",
            bare=AUDIOSET,
        ),
    ] = None
    mapping: Annotated[
        str | Path | None,
        Option(
            "Table of which clip is which recording, if names do not match: columns recording, clip.", metavar="CSV"
        ),
    ] = None
    aliases: Annotated[
        str | None,
        Option(
            "Labels of another data set, or columns label and class, that stand for AudioSet's classes.",
            metavar="desed|esc50|fsd50k|urban-sed|FILE",
        ),
    ] = None
    classes: Annotated[
        str | None,
        Option(
            "Classes to evaluate: a set of AudioSet's, or a list; by default those of --aliases, or 381 if strong.",
            metavar="381|407|416|527|FILE",
        ),
    ] = None
    group: Annotated[
        str | Iterable[str] | None,
        Option("Evaluate groups instead of classes; names as for `events --group`.", metavar="NAME[,NAME]"),
    ] = None
    groups: GroupsFile = None
    own: OwnNames = None
    unknown: Annotated[Unknown, Option("What to do with labels that AudioSet and --aliases do not have.")] = "error"
    threshold: Annotated[
        str | None,
        Option("Minimum score of a detection, by default 0.5, or a file with one for each class.", metavar="S|FILE"),
    ] = None
    tune: Annotated[
        str | Path | None,
        Option(
            "Choose thresholds of classes on the clips listed in a file, and evaluate the others; or on `all` clips.",
            metavar="FILE|all",
        ),
    ] = None
    tune_for: Annotated[
        Literal["segment-f1", "event-f1", "intersection-f1"], Option("Figure of each class that --tune maximises.")
    ] = "segment-f1"
    tune_filters: Annotated[
        str,
        Option("Lengths in chunks of the median filter that --tune chooses from for each class.", metavar="N,N,..."),
    ] = "1"
    segment_s: Annotated[
        float | None,
        Option("Length of segments in seconds; by default that of a row of the tables.", minimum=0, above=True),
    ] = None
    collar_s: Annotated[float, Option("Collar of event metrics, in seconds.", minimum=0, above=True)] = 0.2
    offset_fraction: Annotated[
        float,
        Option(
            "Collar of offsets as a fraction of the event's length, if longer than --collar-s.", minimum=0, maximum=1
        ),
    ] = 0.5
    dtc: Annotated[
        float,
        Option("Minimum part of a detection within labelled events, for intersection-F1.", minimum=0, maximum=1),
    ] = 0.5
    gtc: Annotated[
        float,
        Option("Minimum part of a labelled event within detections, for intersection-F1.", minimum=0, maximum=1),
    ] = 0.5
    median_filter: Annotated[
        int, Option("Length of the median filter over scores, an odd number of chunks; 1: none.", minimum=1)
    ] = 1
    min_s: Annotated[float, Option("Minimum length of detected events, in seconds.", minimum=0)] = 0.0
    psds_thresholds: Annotated[
        str,
        Option(
            "Thresholds of the PSDS: all at which anything changes, or N evenly spaced; 0: no PSDS.", metavar="exact|N"
        ),
    ] = EXACT
    bootstrap: Annotated[int, Option("Number of bootstrap samples for confidence intervals; 0: none.", minimum=0)] = 200
    bootstrap_by: Annotated[
        str,
        Option(
            "What the bootstrap draws: recordings, folders, or groups in a table with the columns recording and group.",
            metavar="recording|folder|FILE",
        ),
    ] = "recording"
    level: Annotated[float, Option("Confidence level of the intervals.", minimum=0.5, maximum=1, below=True)] = 0.95
    seed: Annotated[int, Option("Random seed of the bootstrap.", minimum=0)] = 0
    cross_check: Annotated[
        bool, Option("Compute the figures of some clips once more with sed_eval and psds-eval themselves.")
    ] = False

    @property
    def filters(self) -> tuple[int, ...]:
        """Lengths of the median filter that --tune chooses from, in chunks."""
        return tuple(int(each) for each in self.tune_filters.split(","))

    @property
    def psds_points(self) -> int | None:
        """Number of thresholds of the PSDS; None: all."""
        return None if self.psds_thresholds == EXACT else int(self.psds_thresholds)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: An option cannot work.
        """
        super().__post_init__()
        if self.median_filter % 2 == 0:
            raise ConfigError(f"--median-filter must be an odd number of chunks, not {self.median_filter}")
        if (self.group is not None or self.groups is not None) and (self.classes or self.aliases):
            raise ConfigError("--group and --groups choose the classes to evaluate: leave out --classes and --aliases")
        if self.own is not None and (self.classes or self.aliases or self.group is not None or self.groups is not None):
            raise ConfigError(
                "--own chooses the classes to evaluate: leave out --classes, --aliases, --group and --groups"
            )
        if self.tune and self.threshold is not None:
            raise ConfigError("--tune chooses thresholds: leave out --threshold")
        if any(not each.strip().isdecimal() or int(each) % 2 == 0 for each in self.tune_filters.split(",")):
            raise ConfigError(f"--tune-filters must be odd numbers of chunks such as 1,3,5, not {self.tune_filters}")
        if self.filters != (1,) and (not self.tune or self.median_filter > 1):
            raise ConfigError("--tune-filters is for --tune, and not for --median-filter")
        if self.psds_thresholds != EXACT and not self.psds_thresholds.isdecimal():
            raise ConfigError(f"--psds-thresholds must be {EXACT} or a whole number, not {self.psds_thresholds}")


@dataclass(frozen=True, kw_only=True)
class EventOptions(SelectionOptions):
    """Options of `satpipe events`."""

    threshold: Threshold = None
    low: Annotated[
        float | None,
        Option(
            "Minimum for every score of an event; by default 0.6 of the threshold.", minimum=0, maximum=1, above=True
        ),
    ] = None
    min_s: Annotated[float, Option("Minimum length of an event in seconds; shorter events are dropped.", minimum=0)] = (
        0.0
    )
    merge_gap_s: Annotated[
        float, Option("Maximum gap in seconds between two events of a class that are merged.", minimum=0)
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class CompareOptions(PartOptions):
    """Options of `satpipe compare`."""

    labels: Labels = None
    group: GroupNames = None
    groups: GroupsFile = None
    threshold: Annotated[
        float | str | Path,
        Option("Minimum score of what counts as found in the first OUT, or a file of thresholds.", metavar="S|FILE"),
    ] = DEFAULT_THRESHOLD
    second_threshold: Annotated[
        float | str | Path | None,
        Option("The same for the second OUT; by default that of the first.", metavar="S|FILE"),
    ] = None

    @property
    def of_each(self) -> tuple[EventOptions, EventOptions]:
        """Classes, groups and thresholds of the first and of the second folder."""
        first = EventOptions(labels=self.labels, group=self.group, groups=self.groups, threshold=self.threshold)
        return first, first if self.second_threshold is None else replace(first, threshold=self.second_threshold)


@dataclass(frozen=True, kw_only=True)
class ActivityOptions(EventOptions):
    """Options of `satpipe activity`."""

    by: Annotated[
        str | Iterable[str],
        Option(
            "What separates rows, besides classes and groups; by default hour. label: nothing else.",
            metavar="hour|day|recording|folder|label",
        ),
    ] = ("hour",)
    time_zone: Annotated[
        str | None,
        Option("Time zone of hours and days, such as Europe/Berlin; by default that of the run.", metavar="ZONE"),
    ] = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: A value is not allowed.
        """
        super().__post_init__()
        given = [self.by] if isinstance(self.by, str) else self.by
        by = tuple(dict.fromkeys(each.strip() for text in given for each in text.split(",")))
        for each in by:
            if each not in BY:
                raise ConfigError(f"--by must be {', '.join(BY[:-1])} or {BY[-1]}, or several of them, not {each!r}")
        object.__setattr__(self, "by", by)

    @property
    def selection(self) -> "Selection":
        """The part of the folder; for hours and days, recordings must have a date."""
        return replace(super().selection, dated=HOUR in self.by or DAY in self.by)


@dataclass(frozen=True)
class ClipsOptions(EventOptions):
    """Options of `satpipe clips`."""

    to: Annotated[
        str | Path, Option("New folder for the clips, their sheet and the page.", metavar="DIR", flags=("-o", "--to"))
    ] = "clips"
    per_class: Annotated[int, Option("Maximum number of clips of each class.", minimum=1, metavar="N")] = 50
    sample: Annotated[
        Literal["stratified", "top"],
        Option(
            "stratified: at random, the same number from each part of the range of scores, for precision and "
            "thresholds; top: the highest scores."
        ),
    ] = "stratified"
    seed: Annotated[int, Option("Random seed of the draw.", minimum=0)] = 0
    pad_s: Annotated[float, Option("Seconds before and after each event.", minimum=0)] = 1.0
    length_s: Annotated[
        float, Option("Maximum length of a clip in seconds; of a longer event, the middle is cut.", minimum=0.5)
    ] = 10.0
    stretches: Annotated[
        str | Path | None,
        Option(
            "Table of stretches to cut instead of events: columns recording, start_s, end_s, label[, score].",
            metavar="FILE",
        ),
    ] = None
    moved_to: Annotated[
        str | Path | None,
        Option("Folder of the recordings, if they have moved since they were tagged.", metavar="DIR"),
    ] = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: An option cannot work.
        """
        super().__post_init__()
        if 2 * self.pad_s >= self.length_s:
            raise ConfigError(f"--length-s must be more than twice --pad-s, which is {self.pad_s:g} s")
        unused = [each for each in declared(EventOptions) if getattr(self, each.name) != each.default]
        if self.stretches and unused:
            raise ConfigError(f"--stretches states what to cut: leave out {unused[0].flags[-1]}")


@dataclass(frozen=True)
class VerifyOptions(Options):
    """Options of `satpipe verify`."""

    precision: Annotated[
        float, Option("Precision that the thresholds must reach.", minimum=0, maximum=1, above=True)
    ] = 0.9
    level: Annotated[float, Option("Confidence level of the intervals.", minimum=0.5, maximum=1, below=True)] = 0.95
    groups: Annotated[
        str | Path | None,
        Option(
            "Table of groups that `clips` was given with --groups; needed for the file of thresholds.", metavar="FILE"
        ),
    ] = None


@dataclass(frozen=True)
class ConsistencyOptions(Options):
    """Options of `satpipe report-consistency`."""

    labels: Annotated[
        tuple[str, ...],
        Option("Classes to compare; under:NAME selects a class and all below it.", metavar="LABEL[,LABEL]"),
    ]
    threshold: Annotated[
        float, Option("Minimum score at which a label counts as found.", minimum=0, maximum=1, above=True)
    ] = DEFAULT_THRESHOLD


@dataclass(frozen=True, kw_only=True)
class ReportOptions(SelectionOptions):
    """Options of `satpipe report`."""

    threshold: Annotated[
        float,
        Option(
            "Minimum score at which a label counts as found; the page offers others.", minimum=0, maximum=1, above=True
        ),
    ] = DEFAULT_THRESHOLD
    time_zone: Annotated[
        str | None,
        Option(
            "Time zone of the times shown, such as Europe/Berlin; by default that of `satpipe tag`.", metavar="NAME"
        ),
    ] = None
    audio: Annotated[bool, Option("Include short excerpts of the recordings to listen to.")] = True


@dataclass(frozen=True)
class SearchOptions(PartOptions):
    """Options of `satpipe search`."""

    like: Annotated[
        str | Path | Iterable[str | Path] | None,
        Option("Sound file of an example, or a folder of examples; need not be a recording in OUT.", metavar="FILE"),
    ] = None
    like_recording: Annotated[
        str | None, Option("Recording in OUT that is the example, instead of a file.", metavar="NAME")
    ] = None
    start_s: Annotated[
        float | None, Option("Second at which the example starts in its file or recording.", minimum=0)
    ] = None
    end_s: Annotated[float | None, Option("Second at which the example ends.", minimum=0, above=True)] = None
    number: Annotated[
        int,
        Option(
            "Number of chunks to find; adjacent ones are one hit.", minimum=1, flags=("-n", "--number"), metavar="N"
        ),
    ] = 50
    label: Annotated[str | None, Option("Label of the hits; by default the name of the example.", metavar="NAME")] = (
        None
    )
    model: Annotated[
        str | None, Option("Model of OUT, if its file has moved since OUT was made.", metavar="NAME|PATH")
    ] = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: An option cannot work.
        """
        super().__post_init__()
        if (self.like is None) == (self.like_recording is None):
            raise ConfigError("search needs an example: --like FILE, or --like-recording NAME for a recording in OUT")
        if self.end_s is not None and self.end_s <= (self.start_s or 0):
            raise ConfigError(f"--end-s {self.end_s:g} must be after --start-s {self.start_s or 0:g}")
