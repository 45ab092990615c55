"""`satpipe events` turns chunk scores into sound events.

An event of a class is a run of chunks whose scores all reach a lower threshold and at least one of which reaches an
upper one. Then events of a class with only a short gap between them are merged; after that, short events are left out.
An event lasts from the start of its first chunk to the end of its last one. `peak_score` is its highest score,
`mean_score` the mean over its chunks that reach the lower threshold; chunks in merged gaps do not count.
"""

import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.events.write import FORMATS, Written, text, write
from satpipe.jobs.options.results import EventOptions
from satpipe.pipeline.option import takes
from satpipe.pipeline.tables.schemas import EVENTS

__all__ = ["FORMATS", "EventOptions", "Written", "events", "text", "write"]


@takes(EventOptions)
def events(out: str | Path, options: EventOptions) -> pd.DataFrame:
    """Find the sound events of a folder, as `satpipe events` does.

    >>> satpipe.events("out", labels="under:Animal")[["recording", "start_s", "end_s", "label"]]
       recording  start_s  end_s                                    label
    0  birds.wav      0.0    4.0                                     Bird
    1  birds.wav      0.0    4.0  Bird vocalization, bird call, bird song
    2  birds.wav      0.0    4.0                             Chirp, tweet

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        options: Given as keyword arguments.

    Returns:
        A row for each event, sorted by recording, start and class, with the columns `recording`, `start_s`, `end_s`
        (from the recording's start), `mid`, `label`, `peak_score`, `mean_score`, `time` (UTC), `time_local` (the
        same in the time zone of the run) and `end_time` (UTC); times are missing if the recording's start is unknown.

    Raises:
        OutputError: `out` is not an output folder, has no scores or no such recording, or a file is damaged.
        ConfigError: A threshold or length is not valid.
        LabelError: A class is unknown.
        TruthError: The table of thresholds cannot be read, or classes are missing in it.
    """
    finder = Finder(out, options)
    for note in finder.notes:
        warnings.warn(note, stacklevel=4)
    table = pa.concat_tables([EVENTS.empty_table(), *finder.events()]).unify_dictionaries()
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(time_local=frame["time"].dt.tz_convert(finder.tables.zone))
