"""The command `search`."""

from typing import Any

import click
from satpipe.jobs.commands.shared import OUT, options, say
from satpipe.jobs.options.results import SearchOptions


@click.command()
@OUT
@options(SearchOptions)
@click.option("-o", "--to", metavar="FILE", help="Also write the hits to a table, .csv, .tsv or .parquet.")
def search(*, out: str, to: str | None, **given: Any) -> int:
    """Find what sounds like an example.

    Compares a sound file, or a stretch of a recording in OUT, with every chunk in OUT, which needs the table that `tag
    --embeddings` writes. Prints the hits, the most similar one first.
    """
    from satpipe.jobs import search
    from satpipe.pipeline.tables.table_files import table_format

    if to:
        table_format(to)
    hits = search.find(out, SearchOptions(**given))
    say(*search.text(hits))
    if to:
        search.write(hits.table, to)
        say(to)
    return 0
