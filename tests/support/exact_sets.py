"""Small sets by rule, with figures of sed_scores_eval: `parity/sed_scores_eval.json`.

sed_scores_eval 0.0.4 (Ebbers et al., ICASSP 2022; MIT licence) is built from source by Cython and needs lazy_dataset
and einops, so it is no dependency. Where it is installed, `python tests/support/exact_sets.py` makes the file again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RESULTS = Path(__file__).parents[1] / "parity" / "sed_scores_eval.json"
THRESHOLD = 0.4321  # no half-precision number
SETTINGS: dict[str, dict[str, float]] = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_st": 1},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1},
    "psds1_no_variance": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_st": 0},
}
INTERSECTION = {"dtc_threshold": 0.5, "gtc_threshold": 0.5}


@dataclass(frozen=True, eq=False)
class ExactSet:
    """Scores and truth of clips, and durations."""

    classes: int
    chunk_s: float
    scores: list[npt.NDArray[np.float16]]
    """Of each clip, [chunks, classes]."""
    truth: list[list[tuple[float, float, int]]]
    """Of each clip: onset and offset in seconds, class."""

    def ends_s(self, clip: int) -> npt.NDArray[np.float64]:
        """Borders of the chunks of a clip; the last chunk is half as long."""
        borders = np.arange(len(self.scores[clip]) + 1) * self.chunk_s
        borders[-1] -= self.chunk_s / 2
        return borders


def made(classes: int, clips: int, chunks: int, chunk_s: float, seed: int, steps: int = 0) -> ExactSet:
    """Make a set: noise, and higher scores within events; `steps` rounds the scores."""
    rng = np.random.default_rng(seed)
    scores, truth = [], []
    for clip in range(clips):
        number = chunks + clip % 3
        values = 0.3 * rng.random((number, classes))
        events = []
        for label in range(classes):
            at_s = 0.0
            while rng.random() < 0.45:
                onset_s = at_s + rng.integers(0, int(3000 * chunk_s)) / 1000
                offset_s = onset_s + rng.integers(200, int(6000 * chunk_s)) / 1000
                at_s = offset_s + 0.1
                if offset_s > (number - 0.5) * chunk_s:
                    break
                events.append((float(round(onset_s, 3)), float(round(offset_s, 3)), label))
                first, last = int(onset_s / chunk_s), int(offset_s / chunk_s)
                values[first : last + 1, label] += rng.random() * rng.random(last + 1 - first)
                values[first : last + 1, (label + 1) % classes] += 0.2 * rng.random()
        values = np.minimum(values, 1)
        scores.append((np.round(values * steps) / steps if steps else values).astype(np.float16))
        truth.append(events)
    return ExactSet(classes, chunk_s, scores, truth)


def sets() -> dict[str, ExactSet]:
    """Return all sets."""
    return {
        "ten classes": made(10, 30, 5, 1.92, 0),
        "one class": made(1, 20, 6, 1.92, 1),
        "two long recordings": made(3, 2, 250, 0.96, 2),
        "many ties": made(4, 25, 8, 1.0, 3, steps=10),
        "fine chunks": made(5, 12, 60, 0.1, 4),
    }


def by_sed_scores_eval(of: ExactSet) -> dict[str, float]:
    """Compute the figures with sed_scores_eval."""
    from sed_scores_eval.base_modules.scores import create_score_dataframe  # type: ignore[import-not-found]
    from sed_scores_eval.intersection_based import fscore, psds  # type: ignore[import-not-found]

    names = [f"class {label}" for label in range(of.classes)]
    clips = [f"clip {clip}" for clip in range(len(of.scores))]
    scores = {
        clip: create_score_dataframe(values.astype(np.float64), of.ends_s(k), names)
        for k, (clip, values) in enumerate(zip(clips, of.scores, strict=True))
    }
    truth = {clip: [(a, b, names[c]) for a, b, c in events] for clip, events in zip(clips, of.truth, strict=True)}
    durations = {clip: float(of.ends_s(k)[-1]) for k, clip in enumerate(clips)}
    figures: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        if of.classes > 1 or name != "psds2":  # it fails without another class
            figures[name] = float(psds(scores, truth, durations, **setting, max_efpr=100)[0])
            figures[f"{name} to 1000"] = float(psds(scores, truth, durations, **setting, max_efpr=1000)[0])
    thresholds = dict.fromkeys(names, THRESHOLD)
    figures["intersection_f1"] = float(fscore(scores, truth, thresholds, **INTERSECTION)[0]["macro_average"])
    return figures


if __name__ == "__main__":
    RESULTS.write_text(json.dumps({name: by_sed_scores_eval(each) for name, each in sets().items()}, indent=1) + "\n")
