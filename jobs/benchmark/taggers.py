"""How well EfficientAT tags beside the bundled SAT when both must answer soon: `make bench-peers`.

    python tests/benchmark_peers.py CORPUS TEACHER FOLDER reports/peers.json

CORPUS has audio/ and manifest.tsv (path, hint, split). Scenes are made of its validation clips whose hint, words of the
file's name, holds the name of one AudioSet class and no other: so neither model had a say in what is true.
"""

import csv
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from satpipe.jobs.benchmark import tag as benchmark
from satpipe.jobs.evaluate import EvaluateOptions, evaluate
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.synth import SynthOptions, synth
from satpipe.jobs.tag.job import tag
from satpipe.jobs.tag.plan import plan
from satpipe.sat.labels import Label, ancestors, weak_labels

SCENES, LENGTH_S = 120, 20.0
FIGURES = ("mAP", "segment_f1", "onset_f1")
MODEL = ("arch", "sha256", "cut", "memory", "delay_s", "precision")
FIGURE = ("name", "average", "value", "classes_averaged")
CLIPS_PER_CLASS = (2, 12)  # at least, so that a class is not one sound; at most
REGIMES: tuple[dict[str, Any], ...] = (
    {"model": "bundled"},
    {"model": "bundled", "memory": "off"},
    {"model": "efficientat", "delay_s": 10.0},
    {"model": "efficientat", "delay_s": 2.0},
    {"model": "efficientat", "delay_s": 1.0},
)


def named_class(hint: str) -> Label | None:
    """The one class whose name, or a part of it between commas, is among the words of a hint; the most specific."""
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


def foreground(corpus: Path, table: Path) -> int:
    """Write the table of clips that `synth` takes; return how many classes it has."""
    least, most = CLIPS_PER_CLASS
    clips: dict[Label, list[str]] = {}
    with (corpus / "manifest.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            label = named_class(row["hint"]) if row["split"] == "validation" else None
            if label:
                clips.setdefault(label, []).append(row["path"])
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        kept = [label for label in clips if len(clips[label]) >= least]
        for label in sorted(kept, key=lambda label: label.mid):
            writer.writerows([str((corpus / "audio" / path).resolve()), label.mid] for path in clips[label][:most])
    return len(kept)


def measured(corpus: Path, teacher: Path, folder: Path) -> dict[str, Any]:
    """Make scenes, tag them under each regime, and score the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = foreground(corpus, folder / "foreground.csv")
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
        used = regime | ({"model": f"efficientat:{teacher}"} if regime["model"] == "efficientat" else {})
        out = folder / f"out{number}"
        wanted = TagOptions((str(scenes / "audio"),), out, overwrite=True, **used)
        tag(wanted, plan(wanted), lambda progress: None)
        card = evaluate(
            out,
            EvaluateOptions(
                strong=str(scenes / "strong.tsv"), weak=str(scenes / "weak.csv"), classes="527", psds_thresholds=0,
                segment_s=1.0, bootstrap=0,
            ),
        )  # fmt: skip
        rows.append(
            {
                "model": {key: card["model"][key] for key in MODEL},
                "figures": [{key: each[key] for key in FIGURE} for each in card["figures"] if each["name"] in FIGURES],
            }
        )
        print(regime, [(f["name"], f["average"], round(f["value"], 3)) for f in rows[-1]["figures"]], flush=True)
    return {
        "machine": benchmark.machine(),
        "scenes": SCENES,
        "length_s": LENGTH_S,
        "classes": classes,
        "synth": {key: str(value) for key, value in asdict(options).items() if key not in ("out", "foreground")},
        "rows": rows,
    }


if __name__ == "__main__":
    corpus, teacher, folder, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(measured(corpus, teacher, folder), indent=2) + "\n")
