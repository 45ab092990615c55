"""`satpipe evaluate`: score tables against true labels; what is found becomes a card."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import truth
from jobs.metrics import counts, psds, sed, weak
from jobs.metrics.bootstrap import interval, resample
from jobs.metrics.counts import Counts
from jobs.metrics.events import Events, Floats, Ints, detect
from jobs.scores import ChunkScores, Tables
from jobs.truth import StrongTruth
from pipeline.location import locate, written_whole
from sat.config import SAMPLE_RATE_HZ
from sat.errors import ConfigError, OutputError, TruthError
from sat.labels import Label, weak_labels

EXAMPLES = 5  # names shown where there are many
TUNED_OVER = np.arange(1, 20) / 20  # thresholds that --tune chooses from
CARD, CLASSES = "evaluate.json", "classes.csv"
Card = dict[str, Any]

SED_EVAL_RULE = "sed_eval: classes whose F1 is undefined (no truth, or never found) are left out"
ZERO_RULE = "mean over the classes with truth; one that is never found counts 0"


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `satpipe evaluate`, as on its command line."""

    weak: str | Path | None = None
    strong: str | Path | None = None
    mapping: str | Path | None = None
    classes: str = "381"
    unknown: truth.Unknown = "error"
    threshold: str = "0.5"
    tune: str | Path | None = None
    segment_s: float | None = None
    collar_s: float = 0.2
    offset_fraction: float = 0.5
    median_filter: int = 1
    min_s: float = 0.0
    psds_thresholds: int = 50
    bootstrap: int = 200
    level: float = 0.95
    seed: int = 0


def evaluate(out: str | Path, options: EvaluateOptions) -> Card:
    """Score the tables of an output folder.

    Returns:
        What was evaluated, how, and the figures; see the README for its keys.

    Raises:
        ConfigError: Options that contradict one another.
        OutputError: The folder has no tables that can be scored.
        TruthError: True labels that cannot be read, or belong to no recording.
        LabelError: They have labels that satpipe does not know.
    """
    if not (options.weak or options.strong):
        raise ConfigError("there is nothing to compare with: give --weak, --strong or both")
    if options.median_filter < 1 or options.median_filter % 2 == 0:
        raise ConfigError(f"--median-filter is {options.median_filter}: it takes an odd number of chunks")
    tables = Tables(out)
    card: Card = {
        "satpipe": version("satpipe"),
        "out": str(out),
        "model": tables.model,
        "options": {name: value if value is None else _plain(value) for name, value in asdict(options).items()},
        "truth": {},
        "notes": list(tables.notes),
        "figures": [],
        "classes": [],
    }
    if options.weak:
        _Weak(tables, options, card).evaluate(options.weak)
    if options.strong:
        _Strong(tables, options, card).evaluate(options.strong)
    return card


def folders(folder: str | None, outs: tuple[str, ...]) -> list[Any]:
    """Where the card of each output folder goes: the folder itself if there is one, else one of its name below.

    Raises:
        ConfigError: Two output folders have the same name.
    """
    if folder is None or len(outs) == 1:
        return [folder] * len(outs)
    names = [locate(out).name for out in outs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two of the folders are called {twice[0]}: their cards would overwrite each other")
    return [locate(folder) / name for name in names]


def write(card: Card, folder: str | Path) -> None:
    """Write a card, and its classes as a table.

    Raises:
        OutputError: They cannot be written.
    """
    place = locate(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with written_whole(place / CARD) as path:
            path.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with written_whole(place / CLASSES) as path:
            _table(card["classes"]).to_csv(path, index=False)
    except OSError as error:
        raise OutputError(f"{place} cannot be written: {error.strerror or error}") from error


def _table(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)


def read(folder: str | Path) -> Card:
    """Read the card of a folder that `write` wrote to, or a card itself.

    Raises:
        OutputError: There is none.
    """
    place = locate(folder)
    place = place if place.suffix == ".json" else place / CARD
    try:
        card: Card = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{place} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(f"{place} is no card of `satpipe evaluate`: {error}") from error
    if not isinstance(card, dict) or not {"figures", "truth", "model"} <= card.keys():
        raise OutputError(f"{place} is no card of `satpipe evaluate`")
    return card


def compare(first: Card, second: Card) -> None:
    """Make sure that the figures of two cards mean the same.

    Raises:
        ConfigError: They do not; the reasons are named.
    """
    reasons = []
    for kind in sorted(first["truth"].keys() & second["truth"].keys()):
        one, other = first["truth"][kind], second["truth"][kind]
        if one["sha256"] != other["sha256"]:
            reasons.append(f"other {kind} labels: {one['file']} and {other['file']} differ")
        elif one["clips_sha256"] != other["clips_sha256"]:
            reasons.append(f"other clips: {one['found']:,} and {other['found']:,} of those in {one['file']} were found")
    right = {(figure["name"], figure["average"]): figure for figure in second["figures"]}
    shared = [
        (figure, right[key]) for figure in first["figures"] if (key := (figure["name"], figure["average"])) in right
    ]
    if not shared:
        reasons.append("they have no figure in common")
    differ: dict[str, None] = {}
    for one, other in shared:
        for key in one.keys() | other.keys():
            if key in CONDITIONS and one.get(key) != other.get(key):
                differ.setdefault(f"{key} of {one['name']}: {one.get(key)} and {other.get(key)}")
    reasons += list(differ)[:EXAMPLES]
    if reasons:
        raise ConfigError("the two cards cannot be compared:\n  " + "\n  ".join(reasons))


CONDITIONS = (
    "truth", "class_set", "nan_rule", "threshold", "threshold_source", "thresholds", "segment_s", "collar_s",
    "offset_fraction", "median_filter", "min_s", "alpha_st", "alpha_ct", "dtc", "gtc", "cttc", "max_efpr",
)  # fmt: skip
"""What two figures must share to be compared. The number of classes averaged is a result: sed_eval's rule makes it
depend on what was found."""


class _Evaluation:
    """What both kinds of truth have in common: clips, and a place for figures."""

    kind = ""

    def __init__(self, tables: Tables, options: EvaluateOptions, card: Card) -> None:
        self.tables, self.options, self.card = tables, options, card
        self.model: dict[str, Any] = card["model"]
        tagged = np.flatnonzero(tables.chunks > 0)
        self.recordings = [tables.recordings[row] for row in tagged]
        self.duration_s = tables.duration_s[tagged]
        self.status = [tables.statuses[row] for row in tagged]
        self.weights = np.zeros((0, 0), np.int32)
        self.clips: dict[str, Any] = {}

    def join(self, path: str | Path, listed: tuple[str, ...], unknown: dict[str, int]) -> truth.Match:
        """Find the recordings of the clips listed, and describe the truth in the card."""
        mapping = truth.read_mapping(self.options.mapping) if self.options.mapping else None
        match = truth.match(listed, self.recordings, mapping)
        if not len(match.clip):
            theirs = f" ({self.recordings[0]}, ...)" if self.recordings else ""
            raise TruthError(
                f"none of the {len(listed):,} clips of {path} ({listed[0]}, ...) is among the {len(self.recordings):,} "
                f"recordings tagged in {self.card['out']}{theirs}: --mapping FILE tells which is which"
            )
        found = [listed[clip] for clip in match.clip]
        self.clips = {"clips_found": len(found), "clips_listed": len(listed)}
        self.card["truth"][self.kind] = {
            "file": str(path),
            "sha256": _sha256_of(path),
            "listed": len(listed),
            "found": len(found),
            "not_found": len(match.missing),
            "examples": list(match.missing[:EXAMPLES]),
            "clips_sha256": hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest(),
        }
        if match.unlisted:
            self.note(f"{len(match.unlisted):,} recordings are not in the {self.kind} labels, and not evaluated")
        if unknown:
            self.note(f"{sum(unknown.values()):,} {self.kind} labels that satpipe does not know are left out")
        broken = sum(self.status[recording] != "ok" for recording in match.recording)
        if broken:
            self.note(f"{broken:,} of the recordings evaluated were not tagged from start to end")
        self.weights = resample(len(found), self.options.bootstrap, self.options.seed)
        return match

    def read_scores(self, match: truth.Match, columns: list[int]) -> ChunkScores:
        """Read the scores of the recordings found: clip i of the result is the i-th clip found."""
        return self.tables.read_scores([self.recordings[recording] for recording in match.recording], columns)

    def note(self, text: str) -> None:
        """Add something the reader of the figures should know."""
        self.card["notes"].append(text)

    def add(
        self, name: str, average: str, value: Any, samples: Floats | None = None, *, mirrored: bool = False, **how: Any
    ) -> None:
        """Add a figure; `samples` are its values in the bootstrap's samples."""
        low, high = np.nan, np.nan
        if samples is not None and len(samples):
            low, high = interval(samples, self.options.level, float(value) if mirrored else None)
        self.card["figures"].append(
            {
                "name": name,
                "average": average,
                "value": _number(value),
                "low": _number(low),
                "high": _number(high),
                **how,
                **self.clips,
                **{key: self.model[key] for key in ("arch", "sha256", "delay_s", "cut", "memory", "precision")},
                "satpipe": self.card["satpipe"],
            }
        )


class _Weak(_Evaluation):
    """Clip scores against weak labels."""

    kind = "weak"

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the card."""
        labels = truth.read_weak(path, self.options.unknown)
        match = self.join(path, labels.clips, labels.unknown)
        labels = labels.take(match.clip)
        chunks = self.read_scores(match, list(range(len(weak_labels()))))
        means = weak.clip_scores(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, self.model["chunk_s"])
        rows: list[dict[str, Any]] = []
        for name, closed in (("as is", False), ("with parents", True)):
            positives = truth.positives(labels, closed=closed)
            figures = weak.weak_figures(means, positives)
            samples = weak.weak_replicates(means, positives, self.weights)
            suffix = "_closed" if closed else ""
            how = {
                "truth": name,
                "class_set": "527",
                "classes": len(weak_labels()),
                "clip_score": "mean of whole chunks",
            }
            defined = "classes with a positive"
            with_auc = "classes with a positive and a negative"
            for figure, average, attribute, over, rule in (
                ("mAP", "macro", "mean_average_precision", figures.classes, defined),
                ("mAP", "micro", "micro_average_precision", None, "all pairs of clip and class as one ranking"),
                ("mAP", "weighted", "weighted_average_precision", figures.classes, f"{defined}, by their number"),
                ("auc", "macro", "mean_auc", figures.auc_classes, with_auc),
                ("d_prime", "macro", "d_prime", figures.auc_classes, f"of the mean AUC, {with_auc}"),
                ("lwlrap", "micro", "lwlrap", None, "each label of a clip weighs the same"),
            ):
                self.add(
                    figure + suffix,
                    average,
                    getattr(figures, attribute),
                    getattr(samples, attribute),
                    mirrored=figure == "mAP" and average != "micro",
                    **how,
                    classes_averaged=None if over is None else int(over),
                    nan_rule=rule,
                )
            if not closed:
                rows = [
                    {
                        **_named(label),
                        "clips": int(figures.positives[k]),
                        "average_precision": _number(figures.average_precision[k]),
                        "auc": _number(figures.auc[k]),
                        "d_prime": _number(figures.class_d_prime[k]),
                    }
                    for k, label in enumerate(weak_labels())
                ]
                with_truth = int((figures.positives > 0).sum())
                self.card["truth"]["weak"] |= {"classes": len(weak_labels()), "classes_with_truth": with_truth}
        _merge_classes(self.card["classes"], rows)


@dataclass(frozen=True)
class _Way:
    """A way to count what was found against the truth."""

    name: str
    conditions: dict[str, float]
    """What its figures depend on."""
    count: Callable[[Events, Events], Counts]
    """Counts of truth and found."""
    metrics: Callable[[Counts], Any]
    """sed_eval's own metric object, given the counts."""


class _Strong(_Evaluation):
    """Chunks and events against strong labels."""

    kind = "strong"

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the card."""
        options = self.options
        self.labels = truth.class_set(options.classes)
        labels = truth.read_strong(path, options.unknown)
        match = self.join(path, labels.clips, labels.unknown)
        self.duration_s = self.duration_s[match.recording]
        known = self._within(labels.take(match.clip))
        scored = [k for k, label in enumerate(self.labels) if label.index is not None]
        columns = [label.index for label in self.labels if label.index is not None]
        chunks = self.read_scores(match, columns)
        if options.median_filter > 1:
            chunks = replace(chunks, scores=median_filtered(chunks.clip, chunks.scores, options.median_filter))
        self.detector = _Detector(chunks, np.array(scored, np.int32), options.min_s)
        self.segment_s = options.segment_s or self.model["chunk_s"]
        everything = truth.select(known, self.labels)
        with_truth = len(np.unique(everything.label))
        described = self.card["truth"]["strong"]
        described |= {"classes": len(self.labels), "classes_with_truth": with_truth, "events": len(everything)}
        if len(self.labels) > len(scored):
            self.note(f"{len(self.labels) - len(scored)} classes of the set have no output in the model: never found")
        if not with_truth:
            raise TruthError(f"{path} has no event of the {len(self.labels)} classes evaluated ({options.classes})")

        kept = np.ones(len(match.clip), bool)
        threshold: float | Floats
        if options.tune:
            kept, threshold, self.how = self._tuned(options.tune, everything, labels.take(match.clip).clips)
        else:
            threshold, self.how = self._threshold()
        found = self.detector.at(threshold if isinstance(threshold, float) else threshold[scored])
        self.clip_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        self.duration_s = self.duration_s[kept]
        self.weights = resample(int(kept.sum()), options.bootstrap, options.seed)
        self.how |= {"class_set": options.classes, "classes": len(self.labels)}
        self.how |= {"median_filter": options.median_filter, "min_s": options.min_s}

        true, found = self._kept(everything), self._kept(found)
        rows = [{**_named(label), "events": 0} for label in self.labels]
        for row, events in zip(rows, np.bincount(true.label, minlength=len(rows)), strict=True):
            row["events"] = int(events)
        if not isinstance(threshold, float):
            for row, value in zip(rows, threshold, strict=True):
                row["threshold"] = float(value)
        self._rates(true, found, "as is", rows)
        self._rates(self._kept(truth.closed(known, self.labels)), found, "with parents", [])
        self._psds(true)
        _merge_classes(self.card["classes"], rows)

    def _within(self, labels: StrongTruth) -> StrongTruth:
        cut = truth.within(labels, self.duration_s)
        if cut.clipped or cut.dropped:
            self.note(
                f"{cut.clipped:,} true events end after their recording and are cut there, {cut.dropped:,} lie wholly "
                f"behind it and are left out, such as {cut.example}"
            )
        if labels.duplicates:
            self.note(f"{labels.duplicates:,} true events are listed twice; each counts, but for PSDS")
        return cut.truth

    def _threshold(self) -> tuple[float | Floats, dict[str, Any]]:
        given = self.options.threshold
        try:
            value = float(given)
        except ValueError:
            values = truth.read_thresholds(given, self.labels)
            return values, {"threshold": _digest(values), "threshold_source": f"per class, {Path(given).name}"}
        if not 0 <= value <= 1:
            raise ConfigError(f"--threshold is {given}: it takes a number from 0 to 1, or a file")
        return value, {"threshold": value, "threshold_source": "fixed"}

    def _tuned(
        self, split: str | Path, true: Events, clips: tuple[str, ...]
    ) -> tuple[npt.NDArray[np.bool_], Floats, dict[str, Any]]:
        """Choose a threshold for each class on the clips of a list; the others are kept for the figures.

        The one of `TUNED_OVER` with the highest segment-F1; the lowest of equals; 0.5 for classes without truth there.
        """
        tuning = truth.match(clips, truth.read_list(split)).clip
        chosen_on = np.zeros(len(clips), bool)
        chosen_on[tuning] = True
        if not chosen_on.any() or chosen_on.all():
            none_or_all = "all" if chosen_on.any() else "none"
            raise TruthError(
                f"{split} lists {none_or_all} of the clips found: some are needed to choose, some to report"
            )
        true = true.take(chosen_on[true.clip])
        f1 = []
        for threshold in TUNED_OVER:
            found = self.detector.at(float(threshold))
            found = found.take(chosen_on[found.clip])
            f1.append(counts.class_rates(counts.totals(self._segments(true, found, len(clips)))).f1[0])
        best = np.nan_to_num(np.array(f1), nan=-1.0)
        chosen = np.where(best.max(0) >= 0, TUNED_OVER[best.argmax(0)], 0.5)
        how = {"threshold": _digest(chosen), "threshold_source": f"per class, best segment-F1 on {Path(split).name}"}
        self.note(
            f"thresholds were chosen on {chosen_on.sum():,} clips; the figures are of the other {(~chosen_on).sum():,}"
        )
        self.clips["clips_found"] = int((~chosen_on).sum())
        return ~chosen_on, chosen, how

    def _kept(self, events: Events) -> Events:
        """Events of the clips that figures are made of, numbered anew."""
        kept = events.take(self.clip_of[events.clip] >= 0)
        return replace(kept, clip=self.clip_of[kept.clip])

    def _segments(self, true: Events, found: Events, clips: int) -> Counts:
        return sed.count_segments(true, found, clips=clips, labels=len(self.labels), segment_s=self.segment_s)

    def _ways(self) -> Iterator[_Way]:
        """Each way to count: by segments, by onsets, by onsets and offsets."""
        names = [label.mid for label in self.labels]
        size: dict[str, Any] = {"clips": len(self.duration_s), "labels": len(self.labels)}
        segment_s = self.segment_s
        yield _Way(
            "segment",
            {"segment_s": segment_s},
            partial(sed.count_segments, segment_s=segment_s, **size),
            partial(sed.segment_metrics, labels=names, segment_s=segment_s),
        )
        collar: dict[str, Any] = {"collar_s": self.options.collar_s}
        both = {**collar, "offset_fraction": self.options.offset_fraction}
        for name, conditions, match in (("onset", collar, {**collar, "offset": False}), ("event", both, both)):
            count = partial(sed.count_events, **match, **size)
            yield _Way(name, conditions, count, partial(sed.event_metrics, labels=names, **match))

    def _rates(self, true: Events, found: Events, name: str, rows: list[dict[str, Any]]) -> None:
        """Add F1 and error rates, their ceilings, and to `rows` those of each class."""
        suffix = "" if name == "as is" else "_closed"
        gridded = on_grid(true, self.model["chunk_samples"], self.duration_s)
        for way in self._ways():
            how = {**self.how, **way.conditions, "truth": name}
            counted = way.count(true, found)
            total = counts.totals(counted)
            classes = counts.class_rates(total)
            results = sed.figures(way.metrics(counted))
            overall, mean = results["overall"], results["class_wise_average"]
            samples = counts.totals(counted, self.weights)
            sampled = counts.micro_rates(samples)
            averaged, with_truth = int((~np.isnan(classes.f1)).sum()), int((classes.reference > 0).sum())
            together = {**how, "classes_averaged": None, "nan_rule": "counts of all classes together"}
            by_sed_eval = {**how, "classes_averaged": averaged, "nan_rule": SED_EVAL_RULE}
            by_zero = {**how, "classes_averaged": with_truth, "nan_rule": ZERO_RULE}
            every_class = {**how, "classes_averaged": len(self.labels), "nan_rule": "sed_eval: no class is left out"}

            f1 = f"{way.name}_f1{suffix}"
            self.add(f1, "micro", overall["f_measure"]["f_measure"], sampled.f1, **together)
            self.add(f1, "macro", mean["f_measure"]["f_measure"], counts.macro_f1(samples), **by_sed_eval)
            self.add(f1, "macro_zero", counts.macro_zero_f1(total)[0], counts.macro_zero_f1(samples), **by_zero)
            for each in ("precision", "recall"):
                figure = f"{way.name}_{each}{suffix}"
                self.add(figure, "micro", overall["f_measure"][each], getattr(sampled, each), **together)
            error = f"{'' if way.name == 'segment' else way.name + '_'}error_rate{suffix}"
            self.add(error, "micro", overall["error_rate"]["error_rate"], sampled.error_rate, **together)
            macro = mean["error_rate"]["error_rate"]
            self.add(error, "macro", macro, counts.macro_error_rate(samples), **every_class)
            with_zero, in_samples = counts.macro_zero_error_rate(total)[0], counts.macro_zero_error_rate(samples)
            self.add(error, "macro_zero", with_zero, in_samples, **by_zero)
            ceiling = counts.totals(way.count(true, gridded))
            self.add(f"{way.name}_f1_ceiling{suffix}", "micro", counts.micro_rates(ceiling).f1[0], **together)
            self.add(f"{way.name}_f1_ceiling{suffix}", "macro_zero", counts.macro_zero_f1(ceiling)[0], **by_zero)
            for k, row in enumerate(rows):
                for each in ("f1", "precision", "recall", "error_rate"):
                    row[f"{way.name}_{each}"] = _number(getattr(classes, each)[0, k])

    def _psds(self, true: Events) -> None:
        number = self.options.psds_thresholds
        if not number:
            return
        thresholds = (np.arange(number) + 0.5) / number
        found = self.detector.at_all(thresholds)
        events = self._kept(found.events)
        found = replace(found.take(self.clip_of[found.events.clip] >= 0), events=events)
        merged = true.merged()
        if len(merged) < len(true):
            self.note(f"{len(true) - len(merged):,} true events overlap or touch one of their class: merged for PSDS")
        tally = psds.count(merged, self.duration_s, len(self.labels), found)
        keys = ("median_filter", "min_s", "class_set", "classes")
        how = {key: self.how[key] for key in keys} | {"truth": "as is, overlapping events of a class merged"}
        how |= {"thresholds": number, "threshold_source": f"{thresholds[0]:g} to {thresholds[-1]:g}, evenly spaced"}
        for name, setting in (
            ("psds1", psds.PSDS1),
            ("psds2", psds.PSDS2),
            ("psds1_no_variance", psds.PSDS1_NO_VARIANCE),
        ):
            score = tally.psds(setting)
            samples = tally.resampled(setting, self.weights)
            criteria = {key: value for key, value in asdict(setting).items() if key != "name"}
            with_truth = int((score.truth > 0).sum())
            rule = "classes with truth, mean less alpha_st standard deviations"
            self.add(name, "macro", score.value, samples, **how, **criteria, classes_averaged=with_truth, nan_rule=rule)


class _Detector:
    """Events that scores make at a threshold."""

    def __init__(self, chunks: ChunkScores, places: Ints, min_s: float) -> None:
        self._chunks, self._places, self._min_s = chunks, places, min_s

    def at(self, threshold: float | Floats) -> Events:
        """Events at one threshold, or one for each class that has scores."""
        chunks = self._chunks
        events = detect(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, threshold)
        return self._placed(events.take(self._long_enough(events)))

    def at_all(self, thresholds: Floats) -> psds.Found:
        """Events at each of many thresholds."""
        chunks = self._chunks
        found = psds.found_at(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, thresholds)
        found = found.take(self._long_enough(found.events))
        return replace(found, events=self._placed(found.events))

    def _long_enough(self, events: Events) -> npt.NDArray[np.bool_]:
        long_enough: npt.NDArray[np.bool_] = events.offset_s - events.onset_s >= self._min_s - 1e-9
        return long_enough

    def _placed(self, events: Events) -> Events:
        """From columns of the scores to positions in the class set."""
        return replace(events, label=self._places[events.label])


def median_filtered(clip: Ints, values: npt.NDArray[Any], chunks: int) -> npt.NDArray[Any]:
    """Return scores [n, K] with each replaced by the median of itself and its neighbours in the clip.

    At the ends of a clip its first and last chunk stand in for what is not there.

    Args:
        clip: Of each chunk, [n]; chunks of a clip lie together.
        values: Scores, [n, K].
        chunks: Odd number of chunks to take the median of.
    """
    edges = np.flatnonzero(np.append(True, np.diff(clip) != 0))
    sizes = np.diff(np.append(edges, len(clip)))
    first, last = np.repeat(edges, sizes), np.repeat(edges + sizes - 1, sizes)
    here = np.arange(len(clip))
    near = [np.clip(here + shift, first, last) for shift in range(-(chunks // 2), chunks // 2 + 1)]
    out = np.empty_like(values)
    for column in range(values.shape[1]):
        out[:, column] = np.median(values[:, column][near], axis=0)
    return out


def on_grid(events: Events, chunk_samples: int, duration_s: Floats) -> Events:
    """Return what the best tagger could find: events from the start of a chunk to the end of one.

    Args:
        events: True events.
        chunk_samples: Length of a chunk at 16 kHz.
        duration_s: Of each clip, [clips]: where its last chunk ends.
    """
    chunks = int(np.ceil(duration_s.max(initial=0.0) * SAMPLE_RATE_HZ / chunk_samples)) + 1
    border_s = np.arange(chunks + 1) * chunk_samples / SAMPLE_RATE_HZ
    first = np.searchsorted(border_s, events.onset_s, "right") - 1
    stop = np.maximum(np.searchsorted(border_s, events.offset_s, "left"), first + 1)
    end_s = np.minimum(border_s[stop], duration_s[events.clip])
    return Events(events.clip, events.label, border_s[first], np.maximum(end_s, border_s[first])).merged()


def _named(label: Label) -> dict[str, Any]:
    return {"mid": label.mid, "label": label.name}


def _merge_classes(classes: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Add what is known of classes to what the card has of them already."""
    known = {row["mid"]: row for row in classes}
    for row in rows:
        if row["mid"] in known:
            known[row["mid"]].update(row)
        else:
            classes.append(row)


def _digest(thresholds: Floats) -> str:
    """Tell sets of thresholds apart."""
    return f"sha256 {hashlib.sha256(thresholds.tobytes()).hexdigest()[:16]}"


def _sha256_of(path: str | Path) -> str:
    """Of a file, or of all files of a folder by name."""
    place = locate(path)
    files = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
    return hashlib.sha256(b"".join(hashlib.sha256(each.read_bytes()).digest() for each in files)).hexdigest()


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)


def _number(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None  # JSON has neither infinity nor NaN
