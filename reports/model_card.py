"""The tables in the bundled model's model card; `python -m satpipe.reports.model_card` writes them."""

import json
from typing import Any

from satpipe.jobs.train.validation import TRUE_SEGMENTS
from satpipe.reports.readme import ROOT, put

FOLDER = ROOT / "sat" / "data"
CARD, FIGURES = FOLDER / "MODEL_CARD.md", FOLDER / "bundled_figures.json"


def table(figures: dict[str, Any]) -> str:
    """Return the Markdown table of the figures of all models."""
    models, teacher = figures["models"], figures["teacher"]
    some = next(iter(models.values()))
    rows: list[tuple[str, str, str]] = []  # title, part and key of the figures
    for part, title in (("pieces", "4 s windows"), ("long", "long recordings")):
        for count in TRUE_SEGMENTS:
            classes, key = some[part][f"classes_{count}"], f"teacher_map_{count}"
            rows.append((f"teacher-mAP, {title}, {classes} classes with {count} true windows, memory on", part, key))
            rows.append(("the same, memory off", part, f"{key}_memory_off"))
    rows.append(("same top class as the teacher, 4 s windows", "pieces", "top_1"))
    for part, title in (("validation", "validation clips"), ("held_out", "held-out clips")):
        known = teacher[part]
        rows.append((f"accuracy on {known['clips']} {title} of {known['categories']} categories", part, "right"))
        rows.append(("the same, mean over the categories", part, "mean_right"))
    lines = ["| figure | " + " | ".join(models) + " | teacher |", "|---|" + "---:|" * (len(models) + 1)]
    for title, part, key in rows:
        values = [model[part][key] for model in models.values()] + [teacher.get(part, {}).get(key, 1.0)]
        lines.append(f"| {title} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
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
    """Fill the card of this checkout."""
    CARD.write_text(fill(CARD.read_text(), json.loads(FIGURES.read_text())))


if __name__ == "__main__":
    main()
