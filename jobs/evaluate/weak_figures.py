"""Figures of clip scores against weak labels."""

from pathlib import Path

import numpy as np
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.curves import PR_CLIPS, precision_recall
from satpipe.jobs.evaluate.evaluator import Evaluator, as_number, named
from satpipe.jobs.metrics.arrays import Bools, Floats
from satpipe.jobs.metrics.ranking import RankingMetrics, clip_scores, ranking_metrics, resampled_metrics
from satpipe.sat.errors import TruthError

POSITIVE, BOTH = "classes with a positive", "classes with a positive and a negative"
FIGURES = (  # name, average, attribute of `RankingMetrics`, attribute with the number of classes averaged, rule
    ("mAP", "macro", "mean_average_precision", "classes", POSITIVE),
    ("mAP", "micro", "micro_average_precision", None, "all pairs of clip and class as one ranking"),
    ("mAP", "weighted", "weighted_average_precision", "classes", f"{POSITIVE}, by their number"),
    ("auc", "macro", "mean_auc", "auc_classes", BOTH),
    ("d_prime", "macro", "d_prime", "auc_classes", f"of the mean AUC, {BOTH}"),
    ("lwlrap", "micro", "lwlrap", None, "each label of a clip weighs the same"),
)


class WeakEvaluator(Evaluator):
    """Evaluates clip scores against weak labels."""

    kind = "weak"

    def class_set(self) -> ground_truth.ClassSet:
        """Return all outputs of the model, or the classes chosen among the aliases."""
        return super().class_set() if self.aliases else ground_truth.class_set("527")

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the result."""
        labels = ground_truth.read_weak(path, self.options.unknown, self.aliases)
        if self.in_groups and self.aliases:
            labels = ground_truth.weak_in_groups(labels, self.aliases)
        match = self.join(path, labels)
        labels = labels.take(match.clip)
        self.name_others(labels.labels, labels.label, "labels of clips")
        if not ground_truth.positives(labels, self.classes.labels).any():
            number = len(self.classes.labels)
            raise TruthError(f"{path} has no clip of the {number} evaluated classes ({self.classes.name})")
        chunks, classes = self.read_scores(match), self.classes.labels
        means = np.zeros((len(labels.clips), len(classes)))
        means[:, self.classes.scored] = clip_scores(
            chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, self.model["chunk_s"]
        )
        for truth, suffix in (("as is", ""), ("with parents", "_closed"))[: 1 + self.classes.is_audioset]:
            positives = ground_truth.positives(labels, classes, expand=bool(suffix))
            metrics = ranking_metrics(means, positives)
            samples = resampled_metrics(means, positives, self.weights)
            for name, average, attribute, averaged, rule in FIGURES:
                self.add(
                    name + suffix,
                    average,
                    getattr(metrics, attribute),
                    getattr(samples, attribute),
                    mirrored=name == "mAP" and average != "micro",
                    truth=truth,
                    class_set=self.classes.name,
                    classes=len(classes),
                    clip_score="mean of whole chunks",
                    classes_averaged=None if averaged is None else int(getattr(metrics, averaged)),
                    nan_rule=rule,
                )
            if not suffix:
                self._classes(metrics, samples)
                self._curves(means, positives)

    def _classes(self, metrics: RankingMetrics, samples: RankingMetrics) -> None:
        precision = metrics.average_precision
        rows = [
            {
                **named(label),
                "clips": int(metrics.positives[k]),
                "average_precision": as_number(precision[k]),
                **self.limits("average_precision", samples.average_precision[:, k], precision[k]),
                "auc": as_number(metrics.auc[k]),
                "d_prime": as_number(metrics.class_d_prime[k]),
            }
            for k, label in enumerate(self.classes.labels)
        ]
        self.add_classes(rows)
        with_truth = int((metrics.positives > 0).sum())
        self.result["truth"]["weak"] |= {"classes": len(rows), "classes_with_truth": with_truth}

    def _curves(self, scores: Floats, positives: Bools) -> None:
        if positives.any():
            self.curves.add(PR_CLIPS, None, *precision_recall(positives.ravel(), scores.ravel()))
        for k in np.flatnonzero(positives.any(axis=0)):
            self.curves.add(PR_CLIPS, self.classes.labels[k], *precision_recall(positives[:, k], scores[:, k]))
