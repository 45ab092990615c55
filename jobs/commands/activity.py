"""The command `activity`."""

from typing import Any

import click
from satpipe.jobs.commands.shared import OUT, options, say, with_lists
from satpipe.jobs.options.results import ActivityOptions


@click.command()
@OUT
@click.option(
    "-o", "--to", metavar="FILE", help="Table to write: .csv, .tsv or .parquet; by default activity.csv in OUT."
)
@options(ActivityOptions)
def activity(*, out: str, to: str | None, **given: Any) -> int:
    """Count events by hour, day, recording or folder.

    Each row has the recorded time (the effort), the number and total length of events, and the highest score of a class
    or group. An hour without a recording has no row; a recorded hour without an event has 0 events.
    """
    from satpipe.jobs import activity

    say(*activity.text(activity.write(out, ActivityOptions(**with_lists(given)), to)))
    return 0
