"""Compare scores over time of the same recordings under several regimes: models and delays, with and without memory.

This is the comparison of section 5.4 and Figure 2 of Dinkel et al. (2024): a long sound should be detected in every
chunk.
"""

import json
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.sound_events import detect, rounded_up
from satpipe.jobs.options.results import ConsistencyOptions
from satpipe.pipeline.storage import locate, write_text
from satpipe.pipeline.tables.chunk_scores import ChunkScores, read_chunks
from satpipe.pipeline.tables.open_folder import SHOWN, Tables
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.labels import Label, weak_labels
from satpipe.sat.model.config import get_config, grids_text

JSON, CSV = "consistency.json", "consistency.csv"
SAME_LENGTH_S = 0.1  # recordings whose lengths differ by more are different recordings


@dataclass(frozen=True)
class Regime:
    """The model and options behind the scores of a folder."""

    name: str
    """Model, delay and memory; also the folder if regimes would otherwise have the same name."""
    out: str
    """Output folder, as given by the caller."""
    arch: str
    memory: str
    """"on" or "off"."""
    delay_s: float
    cut: str
    precision: str
    sha256: str
    """Of the model."""


@dataclass(frozen=True)
class Figures:
    """Figures of one class in one recording under one regime."""

    regime: str
    recording: str | None
    """None: all recordings."""
    mid: str
    label: str
    chunks: int
    duration_s: float
    mean: float
    """Mean of the chunks' scores, not weighted by length."""
    std: float
    """Population standard deviation of the chunks' scores."""
    share_above: float
    """Share of the chunks whose score reaches the threshold."""
    longest_gap_s: float
    """Longest uninterrupted time below the threshold."""


@dataclass(frozen=True, eq=False)
class Consistency:
    """A comparison of several regimes."""

    threshold: float
    labels: tuple[Label, ...]
    recordings: tuple[str, ...]
    """Sorted."""
    regimes: tuple[Regime, ...]
    scores: tuple[ChunkScores, ...]
    """Chunks of the recordings and scores of the labels of each regime."""
    figures: tuple[Figures, ...]
    """By class, recording and regime; if there are several recordings, followed by the figures of all together."""
    notes: tuple[str, ...]
    """Limitations of the figures."""


def consistency(
    outs: Sequence[str | Path], labels: Sequence[int], threshold: float = ConsistencyOptions.threshold
) -> Consistency:
    """Compare the scores of folders.

    Args:
        outs: One or more output folders of `satpipe tag` with the same recordings.
        labels: Classes, positions in the model's outputs.
        threshold: Minimum score at which a class counts as found.

    Raises:
        ConfigError: No folder or class is given, or the threshold is not valid.
        OutputError: A folder has no readable scores, or the folders contain different recordings.
    """
    if not outs or not labels:
        raise ConfigError("a comparison needs one or more output folders of `satpipe tag` and one or more labels")
    if not 0 < threshold <= 1:
        raise ConfigError(f"the threshold must be above 0 and at most 1, not {threshold:g}")
    tables = [Tables(out) for out in outs]
    recordings = _shared(outs, tables)
    regimes = _regimes(outs, tables)
    scores = tuple(read_chunks(each, recordings, labels) for each in tables)
    chosen = tuple(weak_labels()[place] for place in labels)
    found = [_figures(regime, read, chosen, threshold) for regime, read in zip(regimes, scores, strict=True)]
    figures = tuple(figure for same in zip(*found, strict=True) for figure in same)
    notes = dict.fromkeys(note for each in tables for note in each.notes)
    return Consistency(threshold, chosen, recordings, regimes, scores, figures, tuple(notes))


def _shared(outs: Sequence[str | Path], tables: list[Tables]) -> tuple[str, ...]:
    """Return the tagged recordings, after checking that they are the same in all folders."""
    tagged = [
        {name: length_s for name, length_s, n in zip(each.recordings, each.duration_s, each.chunks, strict=True) if n}
        for each in tables
    ]
    first = tagged[0]
    for out, other in zip(outs[1:], tagged[1:], strict=True):
        for here, there, only in ((outs[0], out, first.keys() - other.keys()), (out, outs[0], other.keys() - first)):
            if only:
                raise OutputError(f"not the same recordings: {here} has scores of {_some(only)}, {there} does not")
        for name, length_s in first.items():
            if abs(other[name] - length_s) > SAME_LENGTH_S:
                raise OutputError(
                    f"not the same recordings: {name} lasts {length_s:.1f} s in {outs[0]}, {other[name]:.1f} s in {out}"
                )
    if not first:
        raise OutputError(f"{outs[0]} has no recording with scores")
    return tuple(sorted(first))


def _some(names: Set[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def _regimes(outs: Sequence[str | Path], tables: list[Tables]) -> tuple[Regime, ...]:
    made_by = [_name(each) for each in tables]
    weights = {(each.model["arch"], each.model["sha256"]) for each in tables}
    of_arch = Counter(arch for arch, _ in weights)
    alike = [
        of_arch[each.model["arch"]] > 1 or made_by.count(name) > 1 for each, name in zip(tables, made_by, strict=True)
    ]
    folders = [locate(out).name for out in outs]
    if len({*zip(made_by, folders, strict=True)}) < len(outs):
        folders = [str(out) for out in outs]
    names = [f"{name} ({out})" if also else name for name, out, also in zip(made_by, folders, alike, strict=True)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"a folder is given twice: {twice[0]}")
    keys = ("arch", "memory", "delay_s", "cut", "precision", "sha256")
    return tuple(
        Regime(name, str(out), **{key: each.model[key] for key in keys})
        for name, out, each in zip(names, outs, tables, strict=True)
    )


def _name(tables: Tables) -> str:
    model = tables.model
    can_remember = tables.run.get("model", {}).get("streaming")
    if can_remember is None:  # a folder of satpipe 0.1, which had only SAT
        can_remember = get_config(model["arch"]).streaming
    memory = {"on": ", memory", "off": ", no memory"}[model["memory"]] if can_remember else ""
    return f"{model['arch']}, {model['delay_s']:g} s{memory}{grids_text(model['grids'], model['combine'])}"


def _figures(regime: Regime, read: ChunkScores, labels: tuple[Label, ...], threshold: float) -> list[Figures]:
    reached = read.scores >= rounded_up(threshold, read.scores.dtype)
    gaps_s = _longest_gaps_s(read, reached)
    rows = []
    for k, label in enumerate(labels):
        parts: list[tuple[str | None, slice, float]] = [
            (name, slice(*read.first[clip : clip + 2]), gaps_s[clip, k]) for clip, name in enumerate(read.recordings)
        ]
        if len(parts) > 1:
            parts.append((None, slice(None), gaps_s[:, k].max()))
        for name, chunks, gap_s in parts:
            values = read.scores[chunks, k].astype(np.float64)
            rows.append(
                Figures(
                    regime.name,
                    name,
                    label.mid,
                    label.name,
                    chunks=len(values),
                    duration_s=float((read.end_s[chunks] - read.start_s[chunks]).sum()),
                    mean=float(values.mean()),
                    std=float(values.std()),
                    share_above=float(reached[chunks, k].mean()),
                    longest_gap_s=float(gap_s),
                )
            )
    return rows


def _longest_gaps_s(read: ChunkScores, reached: npt.NDArray[np.bool_]) -> Floats:
    """Return the longest uninterrupted time below the threshold for each recording and class, [recordings, classes]."""
    gaps = detect(read.clip, read.start_s, read.end_s, (~reached).astype(np.float16), 1.0)
    longest_s = np.zeros((len(read.recordings), reached.shape[1]))
    np.maximum.at(longest_s, (gaps.clip, gaps.label), gaps.offset_s - gaps.onset_s)
    return longest_s


def write(found: Consistency, folder: str | Path) -> None:
    """Write the figures as JSON and CSV.

    Raises:
        OutputError: A file cannot be written.
    """
    figures = [asdict(figure) for figure in found.figures]
    content = {
        "satpipe": version("satpipe"),
        "threshold": found.threshold,
        "regimes": [asdict(regime) for regime in found.regimes],
        "notes": list(found.notes),
        "figures": figures,
    }
    place = locate(folder)
    write_text(place / JSON, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(place / CSV, pd.DataFrame(figures).to_csv(index=False, lineterminator="\n"))
