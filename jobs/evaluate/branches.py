"""Confusion between branches of the ontology: which branches are detected where another is labelled."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from satpipe.jobs.metrics.arrays import Bools, Rows, repeats
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.sat.labels import Label, ancestors, children, parents, weak_labels

SOURCE_AMBIGUOUS = "/t/dd00098"
DEFINITION = (
    "Rows: chunks whose labelled classes all belong to one branch of the ontology, and to no other. Columns: share of "
    "them in which a class of the branch was detected; several may be, so a row need not add up to 1. A class below "
    "several branches counts for each, but for 'Source-ambiguous sounds' only if it is below no other."
)


def active_chunks(events: Events, chunks: ChunkScores, chunk_s: float) -> Rows:
    """Return which classes are active in which chunks: rows of the chunks, and classes, [2, n]; sorted by class.

    A chunk is a segment in the sense of `satpipe.jobs.metrics.sed.count_segments`. No pair occurs twice.

    Args:
        events: Of the clips of the chunks; `label` is any number.
        chunks: By clip.
        chunk_s: From the start of a chunk to the start of the next, seconds.
    """
    first = np.floor(events.onset_s / chunk_s).astype(np.int64)
    end = np.minimum(np.ceil(events.offset_s / chunk_s).astype(np.int64), np.diff(chunks.first)[events.clip])
    event, place = repeats(np.maximum(end - first, 0))
    row = chunks.first[events.clip[event]] + first[event] + place
    label, row = np.divmod(np.unique(events.label[event] * np.int64(len(chunks)) + row), max(len(chunks), 1))
    return np.stack([row, label])


def branches_of(label: Label) -> tuple[Label, ...]:
    """Return the top classes of the ontology among a class and its ancestors; none if the ontology does not have it."""
    tops = [each for each in (label, *ancestors(label.mid)) if not parents(each.mid) and children(each.mid)]
    certain = [each for each in tops if each.mid != SOURCE_AMBIGUOUS]
    return tuple(certain or tops)


def confusion(
    labelled: tuple[Rows, Sequence[Label]], detected: tuple[Rows, Sequence[Label]], counted: Bools
) -> dict[str, Any]:
    """Return `branches` of the evaluation result: see `DEFINITION`.

    Args:
        labelled: Which classes are labelled in which chunks, pairs [2, n] of `active_chunks`, and these classes. All of
            them determine the branch of a chunk, whatever is evaluated.
        detected: The same for detections, with the evaluated classes.
        counted: True for chunks that figures are computed from.
    """
    tops = _tops()
    shown = [k for k, top in enumerate(tops) if any(top in branches_of(label) for label in detected[1])]
    members, classes = _members(*labelled, tops, len(counted))
    only = (members == classes[:, None]) & (classes > 0)[:, None]
    alone = counted & (np.count_nonzero(only, axis=1) == 1)
    hit = _members(*detected, tops, len(counted))[0] > 0
    rows: list[dict[str, Any]] = []
    for k in shown:
        here = hit[alone & only[:, k]]
        if len(here):
            shares = {tops[other].name: float(here[:, other].mean()) for other in shown}
            nothing = float((~here.any(axis=1)).mean())
            row = {"mid": tops[k].mid, "branch": tops[k].name, "chunks": len(here)}
            rows.append({**row, "nothing": nothing, "found": shares})
    with_truth = int(np.count_nonzero(counted & (classes > 0)))
    left_out = with_truth - sum(row["chunks"] for row in rows)
    return {"definition": DEFINITION, "chunks": with_truth, "left_out": left_out, "rows": rows}


@cache
def _tops() -> tuple[Label, ...]:
    return tuple(dict.fromkeys(top for label in weak_labels() for top in branches_of(label)))


def _members(pairs: Rows, labels: Sequence[Label], tops: Sequence[Label], chunks: int) -> tuple[Rows, Rows]:
    """Return how many active classes of each chunk belong to each branch [chunks, tops], and how many are active."""
    belongs = np.array([[top in branches_of(label) for top in tops] for label in labels], bool)
    chunk, label = pairs
    members = np.stack([np.bincount(chunk[belongs[label, k]], minlength=chunks) for k in range(len(tops))], axis=1)
    return members, np.bincount(chunk, minlength=chunks)
