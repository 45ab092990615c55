"""Measure the bundled model, and write the figures into its card: `make bundled-figures`."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from satpipe.jobs.train import log as train_log
from satpipe.jobs.train.validation import TRUE_PIECES, teacher_figures, with_and_without_memory
from satpipe.pipeline.training_data.feed import in_order, labelled_segments
from satpipe.pipeline.training_data.shards import Shards, decode_clip
from satpipe.pipeline.training_data.teachers import Segments, load_teacher
from satpipe.pipeline.training_data.views import resample
from satpipe.reports.everyday import categories, everyday, told
from satpipe.reports.readme import ROOT, put
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.weights.registry import load_checkpoint
from torch import Tensor

FOLDER = ROOT / "sat" / "data"
CARD, FIGURES = FOLDER / "MODEL_CARD.md", FOLDER / "bundled_figures.json"
BATCH = 32
Tag = Callable[[Tensor], Tensor]
"""Samples at 16 kHz of one recording, [n], to scores, [527]."""


def telling_clips(shards: Shards) -> Iterator[tuple[str, Tensor]]:
    """Yield name and samples at 16 kHz of each clip whose name tells a category."""
    kinds = categories()
    for number, name in enumerate(shards.clips):
        if told(name, kinds) is None:
            continue
        audio = shards.audio(np.array([number], np.int64))[number]
        yield name, torch.from_numpy(decode_clip(audio, SAMPLE_RATE_HZ)[0])


def chunk_scores(model: SAT, log_mel: LogMel, samples: Tensor, *, memory_on: bool = True) -> Tensor:
    """Scores of the chunks of a recording, read from its start to its end; the last is filled with silence.

    Shape:
        [n] -> [K, 527]
    """
    size = model.config.chunk_samples
    filled = torch.nn.functional.pad(samples, (0, -len(samples) % size))
    memory, scores = None, []
    for frames in log_mel(filled[None])[..., : len(filled) // 160].split(model.config.chunk_frames, -1):
        score, after = model(clamp_dynamic_range(frames), memory)
        memory = after if memory_on else None
        scores.append(score)
    return torch.cat(scores)


def on_pieces(model: SAT, shards: Shards, pieces: Segments) -> dict[str, Any]:
    """Teacher-mAP over labelled pieces, each read with an empty memory at its start."""
    log_mel, found, labels = LogMel(), [], []
    samples = round(pieces.segment_s * SAMPLE_RATE_HZ)
    for _, batch in in_order(labelled_segments(shards, pieces), samples, BATCH, 0, 1):
        assert batch.labels is not None
        found.append([part.numpy() for part in with_and_without_memory(model, log_mel, batch.inputs)])
        labels.append(batch.labels.numpy())
    on, off = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return teacher_figures(on, off, np.concatenate(labels))


def joined(manifest: Path, shards: Shards) -> list[list[int]]:
    """Clips by number, those of one origin joined in order; only where there are several."""
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["path"] in shards.by_name]
    origins: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row in rows:
        place = (float(row["start_s"]), shards.by_name[row["path"]])
        origins.setdefault((row["source"], row["origin"]), []).append(place)
    return [[number for _, number in sorted(clips)] for clips in origins.values() if len(clips) > 1]


def on_long_recordings(model: SAT, shards: Shards, pieces: Segments, recordings: list[list[int]]) -> dict[str, Any]:
    """Teacher-mAP over the pieces of long recordings, each read from its start to its end with memory and without.

    A piece's score is the mean of the chunks whose middle lies in it.
    """
    log_mel, size = LogMel(), model.config.chunk_samples
    found: dict[bool, list[npt.NDArray[np.float32]]] = {True: [], False: []}
    numbers: list[int] = []
    for recording in recordings:
        audio = shards.audio(np.array(recording, np.int64))
        clips = [torch.from_numpy(decode_clip(audio[clip], SAMPLE_RATE_HZ)[0]) for clip in recording]
        begins = np.cumsum([0] + [len(clip) for clip in clips])
        starts: list[float] = []  # of pieces, samples
        for clip, begin in zip(recording, begins[:-1], strict=True):
            own = np.nonzero(pieces.numbers == clip)[0]
            numbers += own.tolist()
            starts += (begin + pieces.starts_s[own] * SAMPLE_RATE_HZ).tolist()
        samples = torch.cat(clips)
        middles = (np.arange(-(-len(samples) // size)) + 0.5) * size
        inside = [(start <= middles) & (middles < start + pieces.segment_s * SAMPLE_RATE_HZ) for start in starts]
        for memory_on, parts in found.items():
            scores = chunk_scores(model, log_mel, samples, memory_on=memory_on).numpy()
            parts.append(np.stack([scores[chunks].mean(0) for chunks in inside]))
    on, off = (np.concatenate(parts) for parts in found.values())
    return teacher_figures(on, off, pieces.labels(np.array(numbers, np.int64))) | {
        "recordings": len(recordings),
        "pieces": len(numbers),
    }


def student(model: SAT) -> Tag:
    """Mean of the chunks' scores, memory on."""
    log_mel = LogMel()
    return lambda samples: chunk_scores(model, log_mel, samples).mean(0)


def taught(teacher: Tagger) -> Tag:
    """The teacher's scores of the whole clip."""
    return lambda samples: teacher.scores(resample(samples[None], teacher.rate_hz))[0]


def on_everyday_sounds(tag: Tag, clips: Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
    """Share of the clips whose surest category is that of their name."""
    names, scores = zip(*[(name, tag(samples)) for name, samples in clips], strict=True)
    return asdict(everyday(names, torch.stack(scores).numpy()))


def table(figures: dict[str, Any]) -> str:
    """Markdown table of the figures of all models."""
    models, teacher = figures["models"], figures["teacher"]
    some = next(iter(models.values()))
    rows: list[tuple[str, str, str]] = []  # title, part and key of the figures
    for part, title in (("pieces", "4 s windows"), ("long", "long recordings")):
        for count in TRUE_PIECES:
            classes, key = some[part][f"classes_{count}"], f"teacher_map_{count}"
            rows.append((f"teacher-mAP, {title}, {classes} classes with {count} true windows, memory on", part, key))
            rows.append(("the same, memory off", part, f"{key}_memory_off"))
    rows.append(("the class it is surest of is the teacher's, 4 s windows", "pieces", "top_1"))
    for part, title in (("validation", "validation clips"), ("held_out", "sounds of packages kept apart")):
        known = teacher[part]
        rows.append((f"right about {known['clips']} {title} of {known['categories']} categories", part, "right"))
        rows.append(("the same, mean over the categories", part, "mean_right"))
    lines = ["| figure | " + " | ".join(models) + " | teacher |", "|---|" + "---:|" * (len(models) + 1)]
    for title, part, key in rows:
        values = [model[part][key] for model in models.values()] + [teacher.get(part, {}).get(key, 1.0)]
        lines.append(f"| {title} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def curve_of(metrics: Path) -> list[dict[str, Any]]:
    """What a training run measured on its way: samples, hours, and teacher-mAP of 4 s windows."""
    found: list[dict[str, Any]] = []
    hours = 0.0
    for line in train_log.lines(metrics):
        hours = line.get("hours", hours)
        if "teacher_map_10" in line:
            kept = {key: line[key] for key in line if key.startswith("teacher_map") or key == "top_1"}
            found.append({"samples": line["seen"], "hours": hours} | kept)
    return found


def curve_table(curve: list[dict[str, Any]]) -> str:
    """Markdown table of a training run."""
    keys = ["teacher_map_10", "teacher_map_10_memory_off", "teacher_map_3", "teacher_map_3_memory_off", "top_1"]
    rows = ["| samples | hours | 10 windows | memory off | 3 windows | memory off | surest |", "|" + "---:|" * 7]
    for point in curve:
        values = " | ".join(f"{point[key]:.3f}" for key in keys)
        rows.append(f"| {point['samples']:,} | {point['hours']:.2f} | {values} |")
    return "\n".join(rows)


def fill(card: str, figures: dict[str, Any]) -> str:
    """Put the tables between their marks."""
    for name, text in (("figures", table(figures)), ("curve", curve_table(figures["curve"]))):
        card = put(card, name, text, CARD.name)
    return card


@click.command()
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option("--manifest", type=click.Path(path_type=Path), required=True, help="Of the corpus.")
@click.option("--teacher", "teacher_path", required=True)
@click.option("--model", "models", type=(str, str), multiple=True, required=True, help="Name, and what resolves it.")
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Folder of the run that made the model.")
def main(prepared: Path, manifest: Path, teacher_path: str, models: tuple[tuple[str, str], ...], run: Path) -> None:
    """Measure models on the sets `validation` and `held-out` in PREPARED, and write the card.

    Figures that are there already of models of other names stay.
    """
    validation, held_out = Shards(prepared / "validation"), Shards(prepared / "held-out")
    pieces = Segments(prepared / "validation-labels", validation)
    recordings = joined(manifest, validation)
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"models": {}}
    with torch.inference_mode():
        for name, path in models:
            model = load_checkpoint(path).model()
            figures["models"][name] = {
                "pieces": on_pieces(model, validation, pieces),
                "long": on_long_recordings(model, validation, pieces, recordings),
                "validation": on_everyday_sounds(student(model), telling_clips(validation)),
                "held_out": on_everyday_sounds(student(model), telling_clips(held_out)),
            }
        teacher = taught(load_teacher(teacher_path))
        figures["teacher"] = {
            "validation": on_everyday_sounds(teacher, telling_clips(validation)),
            "held_out": on_everyday_sounds(teacher, telling_clips(held_out)),
        }
    figures["curve"] = curve_of(run / train_log.METRICS)
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
    CARD.write_text(fill(CARD.read_text(), figures))


if __name__ == "__main__":
    main()
