"""The tables in the bundled model's model card; `python -m satpipe.reports.model_card` writes them.

With a file of figures as its argument, it prints the table of these figures instead.
"""

import json
import sys
from pathlib import Path
from typing import Any

from satpipe.jobs.train.validation import TRUE_SEGMENTS
from satpipe.reports.readme import ROOT, put

FOLDER = ROOT / "sat" / "data"
CARD, FIGURES = FOLDER / "MODEL_CARD.md", FOLDER / "bundled_figures.json"


def table(figures: dict[str, Any]) -> str:
    """Return the Markdown table of the figures of all models; a figure that was not measured is empty."""
    models, teacher = figures["models"], figures["teacher"]
    some = next(iter(models.values()))
    rows: list[tuple[str, str, str]] = []  # title, part and key of the figures
    parts = {"pieces": "4 s windows", "long": "long recordings"}
    if "joined" in some:  # figures of earlier versions lack it
        parts["joined"] = f"all clips as one recording of {some['joined']['hours']:.1f} h"
    for part, title in parts.items():
        for count in TRUE_SEGMENTS:
            classes, key = some[part][f"classes_{count}"], f"teacher_map_{count}"
            rows.append((f"teacher-mAP, {title}, {classes} classes with {count} true windows, memory on", part, key))
            rows.append(("the same, memory off", part, f"{key}_memory_off"))
    if "joined" in some:
        rows.append(("calibration error, all clips as one recording, memory on", "joined", "calibration_error"))
    rows.append(("same top class as the teacher, 4 s windows", "pieces", "top_1"))
    for part, title in (("validation", "validation clips"), ("held_out", "held-out clips")):
        known = teacher[part]
        rows.append((f"accuracy on {known['clips']} {title} of {known['categories']} categories", part, "right"))
        rows.append(("the same, mean over the categories", part, "mean_right"))
    lines = ["| figure | " + " | ".join(models) + " | teacher |", "|---|" + "---:|" * (len(models) + 1)]
    for title, part, key in rows:
        best = 0.0 if key == "calibration_error" else 1.0
        values = [model.get(part, {}).get(key) for model in models.values()] + [teacher.get(part, {}).get(key, best)]
        lines.append(f"| {title} | " + " | ".join("" if v is None else f"{v:.3f}" for v in values) + " |")
    return "\n".join(lines)


def curve_table(curve: list[dict[str, Any]]) -> str:
    """Return the Markdown table of a training run."""
    keys = ["teacher_map_10", "teacher_map_10_memory_off", "teacher_map_3", "teacher_map_3_memory_off", "top_1"]
    rows = ["| samples | hours | 10 windows | memory off | 3 windows | memory off | top class |", "|" + "---:|" * 7]
    for point in curve:
        values = " | ".join(f"{point[key]:.3f}" for key in keys)
        rows.append(f"| {point['samples']:,} | {point['hours']:.2f} | {values} |")
    return "\n".join(rows)


def fill(card: str, figures: dict[str, Any]) -> str:
    """Put the tables between their marks in the card."""
    for name, text in (("figures", table(figures)), ("curve", curve_table(figures["curve"]))):
        card = put(card, name, text, CARD.name)
    return card


def main() -> None:
    """Fill the card of this checkout, or print the table of other figures."""
    if sys.argv[1:]:
        print(table(json.loads(Path(sys.argv[1]).read_text())))
        return
    CARD.write_text(fill(CARD.read_text(), json.loads(FIGURES.read_text())))


if __name__ == "__main__":
    main()
