"""Figures of chunks and events against strong labels."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.branches import active_chunks, confusion
from satpipe.jobs.evaluate.detection import Detector, median_filtered, on_grid
from satpipe.jobs.evaluate.evaluator import Evaluator, as_number, named
from satpipe.jobs.ground_truth.text_file import count_and_names
from satpipe.jobs.metrics import counts, psds, sed
from satpipe.jobs.metrics.arrays import Bools, Floats, mean
from satpipe.jobs.metrics.bootstrap import resample
from satpipe.jobs.metrics.counts import Counts
from satpipe.jobs.metrics.psds_counts import Detections
from satpipe.jobs.metrics.sound_events import Events, within
from satpipe.sat.errors import ConfigError, TruthError

TUNED_OVER = np.arange(1, 20) / 20  # thresholds that --tune chooses from
SED_EVAL_RULE = "sed_eval: classes whose F1 is undefined (no truth, or never found) are left out"
ZERO_RULE = "mean over the classes with truth; one that is never found counts 0"


class StrongEvaluator(Evaluator):
    """Evaluates chunks and events against strong labels."""

    kind = "strong"

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the result."""
        options, classes = self.options, self.classes
        self.labels = classes.labels
        labels = ground_truth.read_strong(path, options.unknown, self.aliases)
        match = self.join(path, labels)
        self.duration_s = self.duration_s[match.recording]
        known = self._clipped(labels.take(match.clip))
        everything = ground_truth.select(known, self.labels)
        judged = None
        if known.judged is not None:
            judged = ground_truth.select(replace(known, events=known.judged), self.labels).merged()
        self._describe(path, known, everything)
        self.chunks = self.read_scores(match)
        if options.median_filter > 1:
            scores = median_filtered(self.chunks.clip, self.chunks.scores, options.median_filter)
            self.chunks = replace(self.chunks, scores=scores)
        self.detector = Detector(self.chunks, classes, options.min_s, judged)
        self.segment_s = options.segment_s or self.model["chunk_s"]

        kept = np.ones(len(match.clip), bool)
        threshold: float | Floats
        if options.tune:
            kept, threshold, self.how = self._tuned(options.tune, everything, known.clips)
        else:
            threshold, self.how = self._threshold()
        detected = self.detector.at(threshold if isinstance(threshold, float) else threshold[classes.scored])
        self.clip_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        self.judged = None if judged is None else self._kept(judged)
        self.duration_s = self.duration_s[kept]
        self.weights = resample(int(kept.sum()), options.bootstrap, options.seed, self.groups[kept])
        mids = "\n".join(label.mid for label in self.labels)
        self.how |= {"class_set": classes.name, "classes": len(self.labels)}
        self.how |= {"class_set_sha256": hashlib.sha256(mids.encode()).hexdigest()}
        self.how |= {"median_filter": options.median_filter, "min_s": options.min_s}

        self._by_chunk(known, detected)
        reference, detected = self._kept(everything), self._kept(detected)
        number = np.bincount(reference.label, minlength=len(self.labels)).tolist()
        rows = [{**named(label), "events": events} for label, events in zip(self.labels, number, strict=True)]
        if not isinstance(threshold, float):
            for row, value in zip(rows, threshold.tolist(), strict=True):
                row["threshold"] = value
        self._rates(reference, detected, "as is", rows)
        if classes.is_audioset and judged is None:
            self._rates(self._kept(ground_truth.expanded(known, self.labels)), detected, "with parents", [])
        self._psds(reference, everything)
        self.add_classes(rows)

    def _describe(self, path: str | Path, known: ground_truth.StrongLabels, everything: Events) -> None:
        """Describe the events in the result, and name the classes that are not evaluated."""
        described, number = self.result["truth"]["strong"], len(self.labels)
        with_truth = len(np.unique(everything.label))
        described |= {"classes": number, "classes_with_truth": with_truth, "events": len(everything)}
        others = np.bincount(known.events.label, minlength=len(known.labels))
        left_out = {
            label.name: int(events)
            for label, events in zip(known.labels, others, strict=True)
            if events and label not in set(self.labels)
        }
        if left_out:
            described["not_evaluated"] = left_out
            most = [f"{name} ({left_out[name]:,})" for name in sorted(left_out, key=lambda name: -left_out[name])]
            names = count_and_names(most, "class", "classes")
            self.note(
                f"{sum(left_out.values()):,} labelled events are not in the class set {self.classes.name}, of {names}"
            )
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

    def _threshold(self) -> tuple[float | Floats, dict[str, Any]]:
        given = self.options.threshold
        try:
            value = float(given)
        except ValueError:
            values = ground_truth.read_thresholds(given, self.labels)
            return values, {"threshold": _digest(values), "threshold_source": f"per class, {Path(given).name}"}
        if not 0 <= value <= 1:
            raise ConfigError(f"--threshold must be a number from 0 to 1 or a file, not {given}")
        return value, {"threshold": value, "threshold_source": "fixed"}

    def _tuned(self, split: str | Path, reference: Events, clips: tuple[str, ...]) -> tuple[Bools, Floats, Any]:
        """Choose a threshold for each class on the listed clips, and keep the other clips for the figures.

        It is the lowest value of `TUNED_OVER` with the highest segment-F1, and 0.5 for classes without a reference in
        these clips.
        """
        tuning = ground_truth.match(clips, ground_truth.read_list(split)).clip
        chosen_on = np.zeros(len(clips), bool)
        chosen_on[tuning] = True
        if not chosen_on.any() or chosen_on.all():
            none_or_all = "all" if chosen_on.any() else "none"
            raise TruthError(
                f"{split} lists {none_or_all} of the clips found: some are needed to choose thresholds, others for the "
                "figures"
            )
        reference = reference.take(chosen_on[reference.clip])
        f1 = []
        for threshold in TUNED_OVER:
            detected = self.detector.at(float(threshold))
            detected = detected.take(chosen_on[detected.clip])
            counted = sed.count_segments(
                reference, detected, clips=len(clips), classes=len(self.labels), segment_s=self.segment_s
            )
            f1.append(counts.class_rates(counts.totals(counted)).f1[0])
        best = np.nan_to_num(np.array(f1), nan=-1.0)
        chosen = np.where(best.max(0) >= 0, TUNED_OVER[best.argmax(0)], 0.5)
        how = {"threshold": _digest(chosen), "threshold_source": f"per class, best segment-F1 on {Path(split).name}"}
        kept = int((~chosen_on).sum())
        self.note(f"thresholds were chosen on {chosen_on.sum():,} clips; the figures are of the other {kept:,}")
        self.clips["clips_found"] = kept
        return ~chosen_on, chosen, how

    def _kept(self, events: Events) -> Events:
        """Return the events of the clips that are kept for the figures, with new clip numbers."""
        kept = events.take(self.clip_of[events.clip] >= 0)
        return replace(kept, clip=self.clip_of[kept.clip])

    def _counters(self) -> Iterator[tuple[str, dict[str, float], Callable[[Events, Events], Counts]]]:
        """Yield the ways to count, by segments, onsets, and onsets with offsets: name, conditions and function."""
        size: dict[str, Any] = {"clips": len(self.duration_s), "classes": len(self.labels)}
        segment: dict[str, Any] = {"segment_s": self.segment_s}
        yield "segment", segment, partial(sed.count_segments, **segment, **size)
        collar: dict[str, Any] = {"collar_s": self.options.collar_s}
        yield "onset", collar, partial(sed.count_events, **collar, offset_fraction=None, **size)
        both = {**collar, "offset_fraction": self.options.offset_fraction}
        yield "event", both, partial(sed.count_events, **both, **size)

    def _rates(self, reference: Events, detected: Events, truth: str, rows: list[dict[str, Any]]) -> None:
        """Add F1 and error rates with their upper bounds, and to `rows` those of each class."""
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
            every_class = {**how, "classes_averaged": len(self.labels), "nan_rule": "sed_eval: no class is left out"}

            f1, error = f"{kind}_f1", f"{'' if kind == 'segment' else kind + '_'}error_rate"
            for name, average, value, in_samples, conditions in (
                (f1, "micro", micro.f1, sampled.f1, together),
                (f1, "macro", mean(classes.f1), mean(resampled.f1), by_sed_eval),
                (f1, "macro_zero", mean(classes.zero_f1), mean(resampled.zero_f1), by_zero),
                (f"{kind}_precision", "micro", micro.precision, sampled.precision, together),
                (f"{kind}_recall", "micro", micro.recall, sampled.recall, together),
                (error, "micro", micro.error_rate, sampled.error_rate, together),
                (error, "macro", mean(classes.error_rate), mean(resampled.error_rate), every_class),
                (error, "macro_zero", mean(classes.zero_error_rate), mean(resampled.zero_error_rate), by_zero),
                (f"{f1}_ceiling", "micro", counts.micro_rates(bound).f1, None, together),
                (f"{f1}_ceiling", "macro_zero", mean(best.zero_f1), None, by_zero),
            ):
                self.add(name + suffix, average, value[0], in_samples, **conditions)
            of_class = resampled.zero_f1
            for k, row in enumerate(rows):
                for each in ("f1", "precision", "recall", "error_rate"):
                    row[f"{kind}_{each}"] = as_number(getattr(classes, each)[0, k])
                row |= self.limits(f1, of_class[:, k])
                row[f"{f1}_ceiling"] = as_number(best.f1[0, k])

    def _by_chunk(self, known: ground_truth.StrongLabels, detected: Events) -> None:
        """Add the confusion between branches, and precision over recall of chunks; neither depends on `segment_s`."""
        chunks, chunk_s = self.chunks, self.model["chunk_s"]
        counted = self.clip_of[chunks.clip] >= 0
        if self.classes.is_audioset:
            labelled = active_chunks(ground_truth.select(known, known.labels), chunks, chunk_s)
            hit = active_chunks(detected, chunks, chunk_s)
            branches = confusion((labelled, known.labels), (hit, self.labels), counted)
            self.result["branches"] = branches | {key: self.how[key] for key in ("threshold", "threshold_source")}
        chunk, label = active_chunks(ground_truth.select(known, self.labels), chunks, chunk_s)
        place = (np.cumsum(counted) - 1)[chunk[counted[chunk]]]
        scores = chunks.scores if counted.all() else chunks.scores[counted]
        self.curves.add_chunks(scores, self.classes.scored.tolist(), (place, label[counted[chunk]]), self.labels)

    def _psds(self, reference: Events, everything: Events) -> None:
        given = self.options.psds_points
        if given == 0:
            return
        merged = reference.merged(touching=False)
        if len(merged) < len(reference):
            number = len(reference) - len(merged)
            self.note(f"{number:,} labelled events overlap another of their class: merged for PSDS")
        found: Iterable[Detections]
        decimals = None if given else psds.DECIMALS
        if given is None:
            kept = self.clip_of >= 0
            durations_s, weights = np.zeros(len(kept)), np.zeros((len(self.weights), len(kept)), np.int32)
            durations_s[kept], weights[:, kept] = self.duration_s, self.weights
            found = self.detector.at_all(everything, durations_s, weights, max(each.max_efpr for each in psds.SETTINGS))
            source = "all scores"
        else:
            thresholds = (np.arange(given) + 0.5) / given
            found = [self.detector.at_each(thresholds)]
            source = f"{thresholds[0]:g} to {thresholds[-1]:g}, evenly spaced"
        tally = psds.count(merged, self.duration_s, len(self.labels), map(self._kept_of, found), decimals=decimals)
        samples = tally.resampled(psds.SETTINGS, self.weights)
        keys = ("median_filter", "min_s", "class_set", "class_set_sha256", "classes")
        how = {key: self.how[key] for key in keys} | {"truth": "as is, overlapping events of a class merged"}
        how |= {"thresholds": self.options.psds_thresholds, "threshold_source": source}
        for setting in psds.SETTINGS:
            score = tally.psds(setting)
            criteria = {key: value for key, value in asdict(setting).items() if key != "name"}
            with_truth = int((score.reference > 0).sum())
            rule = "classes with truth, mean less alpha_st standard deviations"
            how |= {**criteria, "classes_averaged": with_truth, "nan_rule": rule}
            self.add(setting.name, "macro", score.value, samples[setting.name], mirrored=True, **how)
            self.curves.add_psds(score, () if setting is psds.PSDS1_NO_VARIANCE else self.labels)
        if with_truth == 1:
            self.note(
                "the PSDS of a single class is the area under its curve, as in sed_scores_eval; psds-eval gives 0, "
                "whatever was detected"
            )

    def _kept_of(self, found: Detections) -> Detections:
        events = self._kept(found.events)
        return replace(found.take(self.clip_of[found.events.clip] >= 0), events=events)


def _digest(thresholds: Floats) -> str:
    """Return a checksum that identifies a set of thresholds."""
    return f"sha256 {hashlib.sha256(thresholds.tobytes()).hexdigest()[:16]}"
