"""The chunks nearest to examples, by comparison with all chunks, row group by row group."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.jobs.search.examples import Examples
from satpipe.pipeline.tables.chunk_embeddings import ChunkEmbeddings, map_embeddings
from satpipe.pipeline.tables.open_folder import Part, Tables
from satpipe.pipeline.tables.schemas import HITS

_FOUND = np.dtype(
    [
        ("score", np.float32), ("recording", np.int32), ("chunk", np.int32), ("example", np.int32),
        ("start_s", np.float64), ("end_s", np.float64),
    ]
)  # fmt: skip
Found = npt.NDArray[np.void]


@dataclass(frozen=True)
class Hits:
    """What a search has found.

    Attributes:
        table: A row for each run of adjacent chunks among the nearest, the most similar first; schema `HITS`.
        found: Number of these chunks.
        searched: Number of chunks that they were chosen from.
        notes: Warnings about the folder.
    """

    table: pa.Table
    found: int
    searched: int
    notes: tuple[str, ...]


def nearest(tables: Tables, part: Part, examples: Examples, number: int, notes: tuple[str, ...] = ()) -> Hits:
    """Return the `number` chunks of a part of a folder that are most similar to an example; see `find`."""
    labels = list(dict.fromkeys(examples.labels))
    label = np.array([labels.index(name) for name in examples.labels])
    best, searched = np.empty(0, _FOUND), 0
    compare = _Comparison(tables, examples, number)
    for count, found in map_embeddings(tables, part, compare.of_chunks):
        searched += count
        best = _highest(np.concatenate([best, found]), number)
    rank = {row: place for place, row in enumerate(sorted(set(best["recording"]), key=tables.recordings.__getitem__))}
    name = np.array([rank[row] for row in best["recording"].tolist()], np.int32)
    best = best[np.lexsort((best["chunk"], name, -best["score"]))][:number]
    return Hits(_stretches(tables, best, label, labels), len(best), searched, notes)


class _Comparison:
    def __init__(self, tables: Tables, examples: Examples, number: int) -> None:
        self._vectors, self._number = examples.vectors.T.copy(), number
        self._begin, self._end = np.zeros((2, len(tables.recordings)), np.int32)  # of the example itself
        if examples.own is not None:
            own = examples.own
            self._begin[own.recordings], self._end[own.recordings] = own.begin, own.end

    def of_chunks(self, chunks: ChunkEmbeddings) -> tuple[int, Found]:
        """Return the number of chunks, and those of them that can be among the nearest."""
        lengths = np.sqrt(np.einsum("ij,ij->i", chunks.embeddings, chunks.embeddings))
        cosines = (chunks.embeddings @ self._vectors) / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
        found = np.empty(len(chunks), _FOUND)
        found["example"] = cosines.argmax(1)
        found["score"] = cosines.max(1)
        for name in ("recording", "chunk", "start_s", "end_s"):
            found[name] = getattr(chunks, name)
        own = (chunks.chunk >= self._begin[chunks.recording]) & (chunks.chunk < self._end[chunks.recording])
        found = found[~own]
        return len(found), _highest(found, self._number)


def _highest(found: Found, number: int) -> Found:
    """Return the chunks with the highest scores, all of those with equal ones."""
    if len(found) <= number:
        return found
    lowest = np.partition(found["score"], len(found) - number)[len(found) - number]
    highest: Found = found[found["score"] >= lowest]
    return highest


def _stretches(tables: Tables, best: Found, label: npt.NDArray[np.int64], labels: list[str]) -> pa.Table:
    """Return the hits: runs of adjacent chunks with the same label."""
    best = best[np.lexsort((best["chunk"], label[best["example"]], best["recording"]))]
    ours = label[best["example"]]
    first = np.ones(len(best), bool)
    first[1:] = (np.diff(best["chunk"]) != 1) | (np.diff(best["recording"]) != 0) | (np.diff(ours) != 0)
    starts = np.flatnonzero(first)
    stops = np.append(starts[1:], len(best))
    scores = np.maximum.reduceat(best["score"], starts) if len(best) else best["score"]
    order = np.argsort(-scores, kind="stable")
    starts, stops, scores = starts[order], stops[order], scores[order]
    recording, start_s = best["recording"][starts], best["start_s"][starts]
    names = pa.array([tables.recordings[row] for row in recording.tolist()], pa.string()).dictionary_encode()
    columns = [
        names,
        pa.array(start_s),
        pa.array(best["end_s"][stops - 1]),
        pa.DictionaryArray.from_arrays(ours[starts].astype(np.int32), pa.array(labels, pa.string())),
        pa.array(scores),
        pa.array(tables.utc(recording, start_s).astype("datetime64[us]"), pa.timestamp("us", tz="UTC")),
    ]
    return pa.table(columns, schema=HITS)
