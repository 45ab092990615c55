"""Finds sound events in the scores of a folder, part by part: a year of scores needs no more memory than a day."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from satpipe.jobs.events.levels import levels
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.median import filtered_by_class
from satpipe.jobs.metrics.sound_events import Runs, find_runs, rounded_up
from satpipe.jobs.options.results import EventOptions
from satpipe.pipeline.tables.chunk_scores import ChunkScores, read_targets
from satpipe.pipeline.tables.local_time import with_offset
from satpipe.pipeline.tables.open_folder import Ints, Part, Tables, side_by_side
from satpipe.pipeline.tables.schemas import EVENTS


class Finder:
    """Finds the events of a folder.

    Attributes:
        tables: The folder.
        recordings: The chosen recordings, as positions in the tables, sorted by name.
        part: Their chosen chunks.
        levels: Classes, groups and thresholds.
        notes: Restrictions on the use of the events.
    """

    def __init__(self, out: str | Path, options: EventOptions) -> None:
        """Open the folder; no score is read yet. Raises the errors of `events`."""
        self.tables = Tables(out, scores=False)
        self.levels = levels(options, self.tables.folder)
        selection = options.selection
        self.notes = (*self.tables.notes, *self.tables.check_scores(), *selection.notes(self.tables))
        if self.levels.file:
            self.notes += tuple(self.levels.file.notes(self.tables.model["sha256"], self.levels.targets))
        self._by_name = self.tables.choose()
        self._rank = np.empty(len(self._by_name), np.int32)  # of each recording's name among all
        self._rank[self._by_name] = np.arange(len(self._by_name))
        part = selection.part(self.tables)
        self.part = part.take(np.argsort(self._rank[part.recordings]))
        self.recordings = self.part.recordings
        self._options = options

    def about(self) -> dict[str, Any]:
        """Return the model and options that the events depend on."""
        tables, levels, file = self.tables, self.levels, self.levels.file
        mids = [target.mid for target in levels.targets]
        return {
            "satpipe": version("satpipe"),
            "run": tables.run.get("id"),
            "model": {
                key: tables.model[key] for key in ("arch", "sha256", "cut", "memory", "delay_s", "grids", "combine")
            },
            "threshold": _one_or_each(mids, levels.threshold),
            "threshold_source": None if file is None else {"file": file.path, **file.source},
            "low": _one_or_each(mids, levels.low),
            "min_s": self._options.min_s,
            "merge_gap_s": self._options.merge_gap_s,
        }

    def events(self) -> Iterator[pa.Table]:
        """Yield the events, schema `EVENTS`, sorted by recording, start and class; all of a recording in one table.

        Raises:
            OutputError: A file of scores, named in the message, is damaged or has too few rows.
        """
        return map(self._table, self.found())

    def found(self, see: Callable[[Ints, ChunkScores], object] | None = None) -> Iterator[Runs]:
        """Yield the events; their `clip` is the rank of the recording's name, see `rows_of`.

        Args:
            see: Is called in several threads, once for each block of chunks, with the positions of their recordings in
                the tables [R] and the scores.

        Raises:
            OutputError: A file of scores, named in the message, is damaged or has too few rows.
        """
        blocks = list(self.tables.blocks(self.part))
        last = dict(zip(self.part.recordings.tolist(), self.part.end.tolist(), strict=True))
        lowest_rank = [int(self._rank[block.recordings].min()) for block in blocks]
        to_come = np.minimum.accumulate([*lowest_rank, len(self._rank)][::-1])[::-1][1:]
        unfinished: list[Runs] = []  # of a recording that continues in the next block
        waiting: list[Runs] = []  # events of recordings that follow later ones by name
        for block, bound, runs in zip(blocks, to_come, side_by_side(partial(self._runs, see), blocks), strict=True):
            unfinished.append(runs)
            if block.end[-1] < last[int(block.recordings[-1])]:
                continue
            events = Runs.together([*waiting, self._events(Runs.together(unfinished))])
            ready = events.events.clip < bound
            unfinished, waiting = [], [events.take(~ready)]
            yield events.take(ready)

    def rows_of(self, ranks: Ints) -> Ints:
        """Return the positions in the tables of recordings with these ranks, [n]."""
        return self._by_name[ranks]

    def _runs(self, see: Callable[[Ints, ChunkScores], object] | None, block: Part) -> Runs:
        """Return runs of chunks that reach the lower threshold; `clip` is the rank of the recording's name."""
        reach = int(self.levels.filters.max(initial=1)) // 2  # chunks on both sides that the median filters need
        end = np.minimum(block.end + reach, self.tables.slots[block.recordings])
        part = Part(block.recordings, np.maximum(block.begin - reach, 0), end)
        at_least = 0.0 if see else float(self.levels.low.min(initial=1.0))
        chunks = read_targets(self.tables, part, self.levels.targets, at_least)
        scores = filtered_by_class(chunks.clip, chunks.scores, self.levels.filters)
        inside = (chunks.chunk >= block.begin[chunks.clip]) & (chunks.chunk < block.end[chunks.clip])
        if not inside.all():
            some = {name: getattr(chunks, name)[inside] for name in ("clip", "chunk", "start_s", "end_s")}
            chunks, scores = replace(chunks, **some), scores[inside]
        if see:
            see(block.recordings, replace(chunks, scores=scores))
        runs = find_runs(chunks.clip, chunks.start_s, chunks.end_s, scores, self.levels.low)
        clip = self._rank[block.recordings][runs.events.clip]
        return replace(runs, events=replace(runs.events, clip=clip))

    def _events(self, runs: Runs) -> Runs:
        """Return the events of whole recordings: join runs cut between blocks, then apply all options."""
        runs = runs.joined()
        runs = runs.take(runs.peak >= rounded_up(self.levels.threshold[runs.events.label], runs.peak.dtype))
        return runs.joined(self._options.merge_gap_s).lasting(self._options.min_s)

    def _table(self, runs: Runs) -> pa.Table:
        events = runs.events
        runs = runs.take(np.lexsort((events.label, events.onset_s, events.clip)))
        events = runs.events
        ranks, recording = np.unique(events.clip, return_inverse=True)
        places, label = np.unique(events.label, return_inverse=True)
        targets = [self.levels.targets[place] for place in places]
        rows = self.rows_of(events.clip)
        time = self.tables.utc(rows, events.onset_s)
        columns = [
            _coded(recording, [self.tables.recordings[self._by_name[rank]] for rank in ranks]),
            events.onset_s,
            events.offset_s,
            _coded(label, [each.mid for each in targets]),
            _coded(label, [each.label for each in targets]),
            runs.peak.astype(np.float32),
            (runs.total / runs.chunks).astype(np.float32),
            pa.array(time, EVENTS.field("time").type),
            with_offset(time, self.tables.zone),
            pa.array(self.tables.utc(rows, events.offset_s), EVENTS.field("end_time").type),
        ]
        return pa.table(columns, schema=EVENTS)


def _one_or_each(mids: list[str], values: Floats) -> float | dict[str, float]:
    rounded = [round(value, 6) for value in values.tolist()]
    return rounded[0] if len(set(rounded)) == 1 else dict(zip(mids, rounded, strict=True))


def _coded(codes: np.ndarray, names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))
