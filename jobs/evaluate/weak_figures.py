"""Clip scores against weak labels."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs import ground_truth
from satpipe.jobs.evaluate.curves import PR_CLIPS, precision_recall
from satpipe.jobs.evaluate.evaluator import Evaluator, as_number, merge_classes, named
from satpipe.jobs.metrics import ranking
from satpipe.jobs.metrics.sound_events import Floats
from satpipe.sat.labels import weak_labels


class WeakEvaluator(Evaluator):
    """Clip scores against weak labels."""

    kind = "weak"

    def evaluate(self, path: str | Path) -> None:
        """Add figures to the card."""
        labels = ground_truth.read_weak(path, self.options.unknown)
        match = self.join(path, labels.clips, labels.unknown)
        labels = labels.take(match.clip)
        chunks = self.read_scores(match, list(range(len(weak_labels()))))
        means = ranking.clip_scores(chunks.clip, chunks.start_s, chunks.end_s, chunks.scores, self.model["chunk_s"])
        rows: list[dict[str, Any]] = []
        for name, closed in (("as is", False), ("with parents", True)):
            positives = ground_truth.positives(labels, closed=closed)
            figures = ranking.weak_figures(means, positives)
            samples = ranking.weak_replicates(means, positives, self.weights)
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
                        **named(label),
                        "clips": int(figures.positives[k]),
                        "average_precision": as_number(figures.average_precision[k]),
                        **self.limits(
                            "average_precision", samples.average_precision[:, k], figures.average_precision[k]
                        ),
                        "auc": as_number(figures.auc[k]),
                        "d_prime": as_number(figures.class_d_prime[k]),
                    }
                    for k, label in enumerate(weak_labels())
                ]
                self._curves(means, positives)
                with_truth = int((figures.positives > 0).sum())
                self.card["truth"]["weak"] |= {"classes": len(weak_labels()), "classes_with_truth": with_truth}
        merge_classes(self.card["classes"], rows)

    def _curves(self, scores: Floats, positives: npt.NDArray[np.bool_]) -> None:
        if positives.any():
            self.curves.add(PR_CLIPS, None, *precision_recall(positives.ravel(), scores.ravel()))
        for k in np.flatnonzero(positives.any(axis=0)):
            self.curves.add(PR_CLIPS, weak_labels()[k], *precision_recall(positives[:, k], scores[:, k]))
