"""`satpipe benchmark taggers`: quality of EfficientAT with short delays, compared with the bundled SAT, as JSON.

The corpus has audio/ and manifest.tsv (path, hint, split). Scenes are mixed from its validation clips whose hint (words
of the file name) contains the name of exactly one AudioSet class, so no model has influenced the ground truth.
"""

import csv
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from satpipe.jobs.benchmark.common import Say, machine
from satpipe.jobs.evaluate import evaluate
from satpipe.jobs.synth import SynthOptions, synth
from satpipe.jobs.tag.job import tag
from satpipe.jobs.train.bundled import Corpus
from satpipe.sat.errors import ConfigError
from satpipe.sat.labels import Label, ancestors, weak_labels

SCENES, LENGTH_S = 120, 20.0
FIGURES = ("mAP", "segment_f1", "onset_f1")
MODEL = ("arch", "sha256", "cut", "memory", "delay_s", "precision")
FIGURE = ("name", "average", "value", "classes_averaged")
CLIPS_PER_CLASS = (2, 12)  # minimum (a class must have more than a single sound) and maximum
REGIMES: tuple[dict[str, Any], ...] = (
    {"model": "bundled"},
    {"model": "bundled", "memory": "off"},
    {"model": "efficientat", "delay_s": 10.0},
    {"model": "efficientat", "delay_s": 2.0},
    {"model": "efficientat", "delay_s": 1.0},
)


def named_class(hint: str) -> Label | None:
    """Return the most specific class that a hint names, in full or by a part between commas; None unless just one."""
    text = f" {' '.join(re.findall(r'[a-z]+', hint.lower()))} "
    found = {
        label
        for label in weak_labels()
        for part in label.name.lower().split(", ")
        if f" {part.replace('-', ' ')} " in text
    }
    general = {parent for label in found for parent in ancestors(label.mid)}
    specific = found - general
    return specific.pop() if len(specific) == 1 else None


def foreground(corpus: Corpus, table: Path) -> int:
    """Write the table of clips for `synth`; return the number of its classes."""
    minimum, maximum = CLIPS_PER_CLASS
    clips: dict[Label, list[str]] = {}
    for row in corpus.rows("validation"):
        label = named_class(row["hint"])
        if label:
            clips.setdefault(label, []).append(row["path"])
    kept = sorted((label for label in clips if len(clips[label]) >= minimum), key=lambda label: label.mid)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for label in kept:
            writer.writerows([str((corpus.audio / path).resolve()), label.mid] for path in clips[label][:maximum])
    return len(kept)


def benchmark(corpus: Corpus, weights: str, folder: Path, say: Say) -> dict[str, Any]:
    """Make scenes, tag them in each regime, and evaluate the tables.

    Args:
        corpus: The corpus.
        weights: File of EfficientAT's weights.
        folder: Folder for scenes and tables.
        say: Called with the result of each regime.

    Raises:
        ConfigError: The corpus has no clip whose hint names a class.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = foreground(corpus, folder / "foreground.csv")
    if not classes:
        raise ConfigError(f"no validation clip of {corpus.manifest} has a hint that names one class")
    scenes = folder / "scenes"
    options = SynthOptions(
        out=str(scenes),
        foreground=str(folder / "foreground.csv"),
        scenes=SCENES,
        length_s=LENGTH_S,
        snr_db=(10.0, 30.0),
        background_db=-45.0,
        events_per_minute=9.0,
        max_polyphony=2,
        overwrite=True,
    )
    synth(options)
    rows = []
    for number, regime in enumerate(REGIMES):
        used = regime | ({"model": f"efficientat:{weights}"} if regime["model"] == "efficientat" else {})
        out = folder / f"out{number}"
        tag(scenes / "audio", out=out, overwrite=True, **used)
        strong, weak = scenes / "strong.tsv", scenes / "weak.csv"
        result = evaluate(out, strong=strong, weak=weak, classes="527", psds_thresholds="0", segment_s=1.0, bootstrap=0)
        found = [{key: each[key] for key in FIGURE} for each in result["figures"] if each["name"] in FIGURES]
        rows.append({"model": {key: result["model"][key] for key in MODEL}, "figures": found})
        say(f"{regime} {[(each['name'], each['average'], round(each['value'], 3)) for each in found]}")
    return {
        "machine": machine(),
        "scenes": SCENES,
        "length_s": LENGTH_S,
        "classes": classes,
        "synth": {key: str(value) for key, value in asdict(options).items() if key not in ("out", "foreground")},
        "rows": rows,
    }
