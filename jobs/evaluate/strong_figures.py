"""Chunks and events against strong labels."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.branches import active_chunks, confusion
from satpipe.jobs.evaluate.detection import Detector, median_filtered, on_grid
from satpipe.jobs.evaluate.evaluator import Evaluator, as_number, merge_classes, named
from satpipe.jobs.metrics import counts, psds, sed
from satpipe.jobs.metrics.bootstrap import resample
from satpipe.jobs.metrics.counts import Counts
from satpipe.jobs.metrics.sound_events import Events, Floats
from satpipe.sat.errors import ConfigError, TruthError

TUNED_OVER = np.arange(1, 20) / 20  # thresholds that --tune chooses from
SED_EVAL_RULE = "sed_eval: classes whose F1 is undefined (no truth, or never found) are left out"
ZERO_RULE = "mean over the classes with truth; one that is never found counts 0"


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


class StrongEvaluator(Evaluator):
    """Chunks and events against strong labels."""

    kind = "strong"

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the card."""
        options = self.options
        self.labels = ground_truth.class_set(options.classes)
        labels = ground_truth.read_strong(path, options.unknown)
        match = self.join(path, labels.clips, labels.unknown)
        self.duration_s = self.duration_s[match.recording]
        known = self._within(labels.take(match.clip))
        scored = [k for k, label in enumerate(self.labels) if label.index is not None]
        columns = [label.index for label in self.labels if label.index is not None]
        chunks = self.read_scores(match, columns)
        if options.median_filter > 1:
            chunks = replace(chunks, scores=median_filtered(chunks.clip, chunks.scores, options.median_filter))
        self.chunks = chunks
        self.detector = Detector(chunks, np.array(scored, np.int32), options.min_s)
        self.segment_s = options.segment_s or self.model["chunk_s"]
        everything = ground_truth.select(known, self.labels)
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
        mids = "\n".join(label.mid for label in self.labels)
        self.how |= {"class_set": options.classes, "classes": len(self.labels)}
        self.how |= {"class_set_sha256": hashlib.sha256(mids.encode()).hexdigest()}
        self.how |= {"median_filter": options.median_filter, "min_s": options.min_s}

        self._by_chunk(known, found, scored)
        true, found = self._kept(everything), self._kept(found)
        rows = [{**named(label), "events": 0} for label in self.labels]
        for row, events in zip(rows, np.bincount(true.label, minlength=len(rows)), strict=True):
            row["events"] = int(events)
        if not isinstance(threshold, float):
            for row, value in zip(rows, threshold, strict=True):
                row["threshold"] = float(value)
        self._rates(true, found, "as is", rows)
        self._rates(self._kept(ground_truth.closed(known, self.labels)), found, "with parents", [])
        self._psds(true)
        merge_classes(self.card["classes"], rows)

    def _within(self, labels: ground_truth.StrongLabels) -> ground_truth.StrongLabels:
        cut = ground_truth.within(labels, self.duration_s)
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
            values = ground_truth.read_thresholds(given, self.labels)
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
        tuning = ground_truth.match(clips, ground_truth.read_list(split)).clip
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
            best, of_class = counts.class_rates(ceiling).f1[0], counts.zero_f1(samples) if rows else samples.tp
            for k, row in enumerate(rows):
                for each in ("f1", "precision", "recall", "error_rate"):
                    row[f"{way.name}_{each}"] = as_number(getattr(classes, each)[0, k])
                row |= self.limits(f"{way.name}_f1", of_class[:, k])
                row[f"{way.name}_f1_ceiling"] = as_number(best[k])

    def _by_chunk(self, known: ground_truth.StrongLabels, found: Events, scored: list[int]) -> None:
        """Add which branch is found where which one is true, and precision over recall, whatever `segment_s` is."""
        chunks, chunk_s = self.chunks, self.model["chunk_s"]
        counted = self.clip_of[chunks.clip] >= 0
        true = active_chunks(ground_truth.select(known, known.labels), chunks, chunk_s)
        hit = active_chunks(found, chunks, chunk_s)
        branches = confusion((true, known.labels), (hit, self.labels), counted)
        self.card["branches"] = branches | {key: self.how[key] for key in ("threshold", "threshold_source")}
        chunk, label = active_chunks(ground_truth.select(known, self.labels), chunks, chunk_s)
        place = (np.cumsum(counted) - 1)[chunk[counted[chunk]]]
        scores = chunks.scores if counted.all() else chunks.scores[counted]
        self.curves.add_chunks(scores, scored, (place, label[counted[chunk]]), self.labels)

    def _psds(self, true: Events) -> None:
        number = self.options.psds_thresholds
        if not number:
            return
        thresholds = (np.arange(number) + 0.5) / number
        found = self.detector.at_all(thresholds)
        events = self._kept(found.events)
        found = replace(found.take(self.clip_of[found.events.clip] >= 0), events=events)
        merged = true.merged(touching=False)
        if len(merged) < len(true):
            self.note(f"{len(true) - len(merged):,} true events overlap another one of their class: merged for PSDS")
        tally = psds.count(merged, self.duration_s, len(self.labels), found)
        keys = ("median_filter", "min_s", "class_set", "class_set_sha256", "classes")
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
            how |= {**criteria, "classes_averaged": with_truth, "nan_rule": rule}
            self.add(name, "macro", score.value, samples, mirrored=True, **how)
            self.curves.add_psds(name, score, () if setting is psds.PSDS1_NO_VARIANCE else self.labels)
        if with_truth == 1:
            self.note("PSDS of a single class is 0 by psds-eval's rules, whatever was found")


def _digest(thresholds: Floats) -> str:
    """Tell sets of thresholds apart."""
    return f"sha256 {hashlib.sha256(thresholds.tobytes()).hexdigest()[:16]}"
