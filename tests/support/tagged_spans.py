"""Tag spans of recordings with a small model, in the process of the test."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from helpers import model_by_rule
from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.tables.schemas import STAGED
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.pipeline.tagging import tag_spans
from satpipe.pipeline.tagging.spans import Span
from satpipe.sat.model.config import CLASSES, Cut, get_config
from satpipe.sat.taggers.sat import SATTagger
from torch import Tensor

SMALL = replace(get_config("SAT_T_2s"), name="small", width=24, heads=2, depth=3)


@cache
def tagger(cut: Cut = "gapless", batch_chunks: int = 32) -> SATTagger:
    return SATTagger(model_by_rule(SMALL), cut, torch.device("cpu"), batch_chunks)


@dataclass
class Tagged:
    """The results of a task."""

    table: pa.Table
    outcomes: list[SpanOutcome]


def tag_task(task: list[Span], tagger: SATTagger) -> Tagged:
    written: list[pa.Table] = []
    outcomes, seconds = tag_spans.tag_task(task, tagger, written.append)
    assert seconds.keys() == {"read", "log_mel", "model", "write"}
    assert all(table.schema.equals(STAGED) and len(table) for table in written)
    return Tagged(pa.concat_tables(written) if written else STAGED.empty_table(), outcomes)


def scores_of(result: Tagged, place: int = 0) -> Tensor:
    """Return the scores [C, 527] of one span, whose chunks must be consecutive."""
    table = result.table.filter(np.asarray(result.table["span"]) == place)
    chunks = table["chunk"].to_pylist()
    assert chunks == list(range(chunks[0], chunks[0] + len(chunks))) if chunks else True
    assert len(chunks) == result.outcomes[place].chunks
    return torch.from_numpy(np.array(table["scores"].to_pylist(), np.float32).reshape(-1, CLASSES))


def tagged(recording: Recording, cut: Cut = "gapless") -> tuple[Tensor, SpanOutcome]:
    """Tag a recording in one span, alone."""
    result = tag_task([Span(recording)], tagger(cut))
    return scores_of(result), result.outcomes[0]
