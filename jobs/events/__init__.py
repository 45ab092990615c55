"""`satpipe events` turns chunk scores into sound events.

An event of a class is a run of chunks whose scores all reach a lower threshold and at least one of which reaches an
upper one. Then events of a class with only a short gap between them are merged, and short events are left out, in this
order. An event lasts from the start of its first chunk to the end of its last one. `peak_score` is its highest score,
`mean_score` the mean over its chunks that reach the lower threshold; chunks in merged gaps do not count.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.events.write import FORMATS, Written, text, write
from satpipe.jobs.options.results import EventOptions
from satpipe.pipeline.tables.schemas import EVENTS
from satpipe.sat.labels import Key

__all__ = ["FORMATS", "EventOptions", "Written", "events", "text", "write"]


def events(
    out: str | Path,
    *,
    labels: Key | Iterable[Key] | None = None,
    threshold: float | str | Path = 0.5,
    low: float | None = None,
    min_s: float = 0.0,
    merge_gap_s: float = 0.0,
    recordings: str | Iterable[str] | None = None,
) -> pd.DataFrame:
    """Find the sound events of a folder.

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        labels: One or several classes: a name, a mid, or `under:` followed by either for a class and all classes below
            it in the ontology; by default all classes, or those in the table of thresholds.
        threshold: Minimum of the highest score of an event: a number, or a table with the columns label or mid, and
            threshold.
        low: Minimum of all scores of an event, not above the threshold; by default 0.6 of it.
        min_s: Shorter events are left out.
        merge_gap_s: Maximum gap between two events of a class that are merged.
        recordings: A name, a pattern such as `site1/*`, or several; by default all.

    Returns:
        A row for each event, sorted by recording, start and class, with the columns `recording`, `start_s`, `end_s`
        (from the recording's start), `mid`, `label`, `peak_score`, `mean_score`, `time` and `end_time` (UTC, missing
        if the recording's start is unknown).

    Raises:
        OutputError: This is not an output folder, it has no scores, it is damaged (the file is named), or it does not
            have such a recording.
        ConfigError: A threshold or length is not valid.
        LabelError: There is no such class.
        TruthError: The table of thresholds cannot be read, or classes are missing in it.
    """
    finder = Finder(out, EventOptions(labels, threshold, low, min_s, merge_gap_s, recordings))
    for note in finder.tables.notes:
        warnings.warn(note, stacklevel=2)
    table = pa.concat_tables([EVENTS.empty_table(), *finder.events()]).unify_dictionaries()
    return table.to_pandas()  # type: ignore[no-any-return]
