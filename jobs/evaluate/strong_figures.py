"""Figures of chunks and events against strong labels."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate import operating, threshold_free
from satpipe.jobs.evaluate.branches import active_chunks, confusion
from satpipe.jobs.evaluate.cross_check import THRESHOLDS, Case, cross_check
from satpipe.jobs.evaluate.detection import Detector, on_grid
from satpipe.jobs.evaluate.evaluator import Evaluator, as_number, named
from satpipe.jobs.metrics import counts, sed
from satpipe.jobs.metrics.arrays import Floats, mean
from satpipe.jobs.metrics.bootstrap import resample
from satpipe.jobs.metrics.counts import Counts, Rates
from satpipe.jobs.metrics.intersection import count_intersections
from satpipe.jobs.metrics.psds_counts import Detections
from satpipe.jobs.metrics.sound_events import Events, within
from satpipe.sat.errors import TruthError

SED_EVAL_RULE = "sed_eval: classes whose F1 is undefined (no truth, or never found) are left out"
SED_EVAL_ERRORS = (
    "sed_eval: no class is left out; undefined if a class without truth was found, where sed_eval divides by 2.2e-16"
)
ZERO_RULE = "mean over the classes with truth; one that is never found counts 0"


class StrongEvaluator(Evaluator):
    """Evaluates chunks and events against strong labels."""

    kind = "strong"

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the result."""
        options, classes = self.options, self.classes
        self.labels = classes.labels
        labels = ground_truth.read_strong(path, options.unknown, self.aliases)
        if self.in_groups and self.aliases:
            labels = ground_truth.strong_in_groups(labels, self.aliases)
        match = self.join(path, labels)
        self.duration_s = self.duration_s[match.recording]
        self.known = self._clipped(labels.take(match.clip))
        self.everything = ground_truth.select(self.known, self.labels)
        judged = None
        if self.known.judged is not None:
            judged = ground_truth.select(replace(self.known, events=self.known.judged), self.labels).merged()
        self.all_judged = judged
        self._describe(path)
        self.chunks = self.read_scores(match)
        self.segment_s = options.segment_s or self.model["chunk_s"]

        chosen = operating.choose(self)
        self.chunks = replace(self.chunks, scores=chosen.filtered(self.chunks))
        self.detector = Detector(self.chunks, classes, options.min_s, judged)
        detected = self.detector.at(chosen.of_scored(classes))
        self.clip_of = np.where(chosen.kept, np.cumsum(chosen.kept) - 1, -1).astype(np.int32)
        self.judged = None if judged is None else self._kept(judged)
        self.duration_s = self.duration_s[chosen.kept]
        self.clips["clips_found"] = int(chosen.kept.sum())
        self.weights = resample(int(chosen.kept.sum()), options.bootstrap, options.seed, self.groups[chosen.kept])
        mids = "\n".join(label.mid for label in self.labels)
        self.how = chosen.how | {"class_set": classes.name, "classes": len(self.labels)}
        self.how |= {"class_set_sha256": hashlib.sha256(mids.encode()).hexdigest(), "min_s": options.min_s}

        self._by_branch(detected)
        threshold_free.add_segments(self)
        reference, detected = self._kept(self.everything), self._kept(detected)
        number = np.bincount(reference.label, minlength=len(self.labels)).tolist()
        rows = [{**named(label), "events": events} for label, events in zip(self.labels, number, strict=True)]
        for row, columns in zip(rows, chosen.columns(), strict=False):
            row |= columns
        self._rates(reference, detected, "as is", rows)
        if classes.is_audioset and judged is None:
            self._rates(self._kept(ground_truth.expanded(self.known, self.labels)), detected, "with parents", [])
        threshold_free.add_psds(self, reference)
        self.add_classes(rows)
        if options.cross_check:
            self._cross_check(reference, detected)

    def _cross_check(self, reference: Events, detected: Events) -> None:
        """Add the figures of sed_eval and psds-eval."""
        case = Case(
            reference=reference,
            detected=detected,
            at_thresholds=self.kept_of(self.detector.at_each(np.array(THRESHOLDS))),
            durations_s=self.duration_s,
            classes=len(self.labels),
            segment_s=self.segment_s,
            collar_s=self.options.collar_s,
            offset_fraction=self.options.offset_fraction,
        )
        self.result["cross_check"] = cross_check(case, self.options.seed)

    def _describe(self, path: str | Path) -> None:
        """Describe the events in the result, and name the classes that are not evaluated."""
        known, everything = self.known, self.everything
        described, number = self.result["truth"]["strong"], len(self.labels)
        with_truth = len(np.unique(everything.label))
        described |= {"classes": number, "classes_with_truth": with_truth, "events": len(everything)}
        self.name_others(known.labels, known.events.label, "labelled events")
        if known.judged is not None:
            pairs = len(np.unique(known.judged.clip.astype(np.int64) * len(known.labels) + known.judged.label))
            described["judged"] = pairs
            self.note(
                f"{pairs:,} pairs of clip and class were judged: nothing else counts, and there are no figures with "
                "parent classes"
            )
        if not with_truth:
            raise TruthError(f"{path} has no event of the {number} evaluated classes ({self.classes.name})")

    def _clipped(self, labels: ground_truth.StrongLabels) -> ground_truth.StrongLabels:
        clipped, note = ground_truth.clipped(labels, self.duration_s)
        if note:
            self.note(note)
        if labels.duplicates:
            self.note(f"{labels.duplicates:,} labelled events are listed twice; both count, except in PSDS")
        return clipped

    def _kept(self, events: Events) -> Events:
        """Return the events of the clips that are kept for the figures, with new clip numbers."""
        kept = events.take(self.clip_of[events.clip] >= 0)
        return replace(kept, clip=self.clip_of[kept.clip])

    def _counters(self) -> Iterator[tuple[str, dict[str, float], Callable[[Events, Events], Counts]]]:
        """Yield the ways to count, by segments, onsets, both borders and overlap: name, conditions and function."""
        size: dict[str, Any] = {"clips": len(self.duration_s), "classes": len(self.labels)}
        segment: dict[str, Any] = {"segment_s": self.segment_s}
        yield "segment", segment, partial(sed.count_segments, **segment, **size)
        collar: dict[str, Any] = {"collar_s": self.options.collar_s}
        yield "onset", collar, partial(sed.count_events, **collar, offset_fraction=None, **size)
        both = {**collar, "offset_fraction": self.options.offset_fraction}
        yield "event", both, partial(sed.count_events, **both, **size)
        yield "intersection", *self.intersections(self.duration_s)

    def intersections(self, durations_s: Floats) -> tuple[dict[str, float], Callable[[Events, Events], Counts]]:
        """Return the conditions of intersection-based F1, and the function that counts for it."""
        criteria: dict[str, Any] = {"dtc": self.options.dtc, "gtc": self.options.gtc}
        count = partial(count_intersections, durations_s=durations_s, classes=len(self.labels), **criteria)
        return criteria, count

    def _rates(self, reference: Events, detected: Events, truth: str, rows: list[dict[str, Any]]) -> None:
        """Add F1 and error rates, with the F1 of the ground truth on the grid, and to `rows` those of each class."""
        suffix = "" if truth == "as is" else "_closed"
        gridded = on_grid(reference, self.model["chunk_samples"], self.duration_s)
        if self.judged is not None:
            gridded = within(gridded, self.judged)[1]
        for kind, kind_conditions, count in self._counters():
            how = {**self.how, **kind_conditions, "truth": truth}
            counted = count(reference, detected)
            total, samples = counts.totals(counted), counts.totals(counted, self.weights)
            bound = counts.totals(count(reference, gridded))
            classes, best = counts.class_rates(total), counts.class_rates(bound)
            micro, sampled = counts.micro_rates(total), counts.micro_rates(samples)
            resampled = counts.class_rates(samples)
            averaged, with_truth = int((~np.isnan(classes.f1)).sum()), int((classes.reference > 0).sum())
            together = {**how, "classes_averaged": None, "nan_rule": "counts of all classes together"}
            by_sed_eval = {**how, "classes_averaged": averaged, "nan_rule": SED_EVAL_RULE}
            by_zero = {**how, "classes_averaged": with_truth, "nan_rule": ZERO_RULE}
            every_class = {**how, "classes_averaged": len(self.labels), "nan_rule": SED_EVAL_ERRORS}

            f1, error = f"{kind}_f1", f"{'' if kind == 'segment' else kind + '_'}error_rate"
            errors: list[tuple[Any, ...]] = [
                (error, "micro", _errors(micro), _errors(sampled), together),
                (error, "macro", _mean_errors(classes), _mean_errors(resampled), every_class),
                (error, "macro_zero", mean(classes.zero_error_rate), mean(resampled.zero_error_rate), by_zero),
            ]
            for name, average, value, in_samples, conditions in (
                (f1, "micro", micro.f1, sampled.f1, together),
                (f1, "macro", mean(classes.f1), mean(resampled.f1), by_sed_eval),
                (f1, "macro_zero", mean(classes.zero_f1), mean(resampled.zero_f1), by_zero),
                (f"{kind}_precision", "micro", micro.precision, sampled.precision, together),
                (f"{kind}_recall", "micro", micro.recall, sampled.recall, together),
                *(errors if kind != "intersection" else ()),  # which no library defines
                (f"{f1}_ceiling", "micro", counts.micro_rates(bound).f1, None, together),
                (f"{f1}_ceiling", "macro_zero", mean(best.zero_f1), None, by_zero),
            ):
                self.add(name + suffix, average, value[0], in_samples, **conditions)
            of_class = resampled.zero_f1
            for k, row in enumerate(rows):
                for each in ("f1", "precision", "recall"):
                    row[f"{kind}_{each}"] = as_number(getattr(classes, each)[0, k])
                if kind != "intersection":
                    row[f"{kind}_error_rate"] = as_number(_errors(classes)[0, k])
                row |= self.limits(f1, of_class[:, k])
                row[f"{f1}_ceiling"] = as_number(best.f1[0, k])

    def kept_of(self, found: Detections) -> Detections:
        """Return the detections in the clips that are kept for the figures, with new clip numbers."""
        events = self._kept(found.events)
        return replace(found.take(self.clip_of[found.events.clip] >= 0), events=events)

    def _by_branch(self, detected: Events) -> None:
        """Add the confusion between branches, which does not depend on `segment_s`."""
        if not self.classes.is_audioset:
            return
        chunks, chunk_s, known = self.chunks, self.model["chunk_s"], self.known
        labelled = active_chunks(ground_truth.select(known, known.labels), chunks, chunk_s)
        hit = active_chunks(detected, chunks, chunk_s)
        branches = confusion((labelled, known.labels), (hit, self.labels), self.clip_of[chunks.clip] >= 0)
        self.result["branches"] = branches | {key: self.how[key] for key in ("threshold", "threshold_source")}


def _errors(rates: Rates) -> Floats:
    """Return error rates; NaN for detections without ground truth, where sed_eval returns huge numbers."""
    return np.where((rates.reference > 0) | (rates.error_rate == 0), rates.error_rate, np.nan)


def _mean_errors(rates: Rates) -> Floats:
    """Return the mean over all classes [B]; NaN if one is undefined."""
    return np.asarray(_errors(rates).mean(axis=-1))
