"""Which branch of the ontology is found where which one is true."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.sat.labels import Label, ancestors, children, parents, weak_labels

Rows = npt.NDArray[np.int64]

SOURCE_AMBIGUOUS = "/t/dd00098"
DEFINITION = (
    "Rows: chunks whose true classes all belong to one branch of the ontology, and to no other. Columns: share of them "
    "in which a class of the branch was found; several may be, so that a row need not add up to 1. A class below "
    "several branches counts for each, but for 'Source-ambiguous sounds' only if it is below no other."
)


def active_chunks(events: Events, chunks: ChunkScores, chunk_s: float) -> Rows:
    """Return in which chunks which class is active: rows of the chunks, and classes, [2, n]; by class, each pair once.

    A chunk is a segment as sed_eval has it, see `satpipe.jobs.metrics.sed.count_segments`.

    Args:
        events: Of the clips of the chunks; `label` is any number.
        chunks: By clip.
        chunk_s: From the start of a chunk to the start of the next.
    """
    first = np.floor(events.onset_s / chunk_s).astype(np.int64)
    end = np.minimum(np.ceil(events.offset_s / chunk_s).astype(np.int64), np.diff(chunks.first)[events.clip])
    number = np.maximum(end - first, 0)
    event = np.repeat(np.arange(len(events)), number)
    place = np.arange(len(event)) - np.repeat(np.cumsum(number) - number, number)
    row = chunks.first[events.clip[event]] + first[event] + place
    label, row = np.divmod(np.unique(events.label[event] * np.int64(len(chunks)) + row), max(len(chunks), 1))
    return np.stack([row, label])


def branches_of(label: Label) -> tuple[Label, ...]:
    """Return the top classes of the ontology that a class is below, or is; none if the ontology lacks it."""
    tops = [each for each in (label, *ancestors(label.mid)) if not parents(each.mid) and children(each.mid)]
    certain = [each for each in tops if each.mid != SOURCE_AMBIGUOUS]
    return tuple(certain or tops)


def confusion(
    true: tuple[Rows, Sequence[Label]], found: tuple[Rows, Sequence[Label]], counted: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Return what a card says of branches: see `DEFINITION`.

    Args:
        true: Which classes are true in which chunks, pairs [2, n] of `active_chunks`, and what the classes are called.
            All of them decide on the branch of a chunk, whatever is evaluated.
        found: The same of what was found, with the classes evaluated.
        counted: Chunks that figures are made of.
    """
    tops = _tops()
    shown = [k for k, top in enumerate(tops) if any(top in branches_of(label) for label in found[1])]
    members, classes = _members(*true, tops, len(counted))
    only = (members == classes[:, None]) & (classes > 0)[:, None]
    alone = counted & (np.count_nonzero(only, axis=1) == 1)
    hit = _members(*found, tops, len(counted))[0] > 0
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


def _members(
    pairs: Rows, labels: Sequence[Label], tops: Sequence[Label], chunks: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how many active classes of each chunk belong to each branch [chunks, tops], and how many are active."""
    belongs = np.array([[top in branches_of(label) for top in tops] for label in labels], bool)
    chunk, label = pairs
    members = np.stack([np.bincount(chunk[belongs[label, k]], minlength=chunks) for k in range(len(tops))], axis=1)
    return members, np.bincount(chunk, minlength=chunks)
