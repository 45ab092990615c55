"""`satpipe activity` counts events and adds up their length by hour, day, recording or folder.

Beside them it states the recorded time, the effort. The length of an event or recording that continues past a full hour
is divided between the hours; an event is counted where it begins. Without a recording there is no row. Without an
event, the row has 0 events.
"""

import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
from satpipe.jobs.activity.table import Written, rows_of, text, write
from satpipe.jobs.options.results import ActivityOptions
from satpipe.pipeline.option import takes

__all__ = ["ActivityOptions", "Written", "activity", "text", "write"]


@takes(ActivityOptions)
def activity(out: str | Path, options: ActivityOptions) -> pd.DataFrame:
    """Count events and add up their length by hour, day, recording or folder, as `satpipe activity` does.

    >>> satpipe.activity("out", group="birds", by="recording")[["recording", "recorded_s", "events", "active_s"]]
        recording  recorded_s  events  active_s
    0   birds.wav         4.0       1       4.0
    1  speech.wav         4.0       0       0.0

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        options: Given as keyword arguments.

    Returns:
        A row for each hour, day, recording or folder with tagged audio and each class or group; of all 527 classes only
        those with an event. Columns as asked for: `recording`, `folder`, `time` and `time_local` (start of the hour or
        day, in UTC and local), `date` and `hour` (local); then `mid`, `label`, `recorded_s`, `events`, `active_s`,
        `share` (of the recorded time with an event) and `peak_score`.

    Raises:
        OutputError: `out` is not an output folder, has no such recording, or a file is damaged.
        ConfigError: An option is not valid, the start of no recording is known, or the table would be too large.
        LabelError: A class or group is unknown.
        TruthError: The table of thresholds cannot be read, or has none for a class or group.
    """
    found = rows_of(out, options)
    for note in found.notes:
        warnings.warn(note, stacklevel=4)
    table = pa.concat_tables([found.schema.empty_table(), *found.tables()]).unify_dictionaries()
    frame: pd.DataFrame = table.to_pandas()
    return frame
