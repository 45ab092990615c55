"""Options of `satpipe prepare` and `satpipe psl`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from satpipe.jobs.options.tag import ClusterOptions
from satpipe.pipeline.option import Option
from satpipe.pipeline.training_data.segments import SegmentOptions

Where = Annotated[
    tuple[tuple[str, str], ...], Option("Only rows of the table with this value.", metavar="COLUMN=VALUE")
]


@dataclass(frozen=True)
class PrepareOptions(ClusterOptions):
    """Options of `satpipe prepare`."""

    out: Annotated[str | Path, Option("Folder of the training set.", flags=("-o", "--out"))]
    table: Annotated[Path | None, Option("CSV or TSV of labels.", metavar="FILE")] = None
    segments: Annotated[Path | None, Option("One of AudioSet's CSVs.", metavar="FILE")] = None
    where: Where = ()
    clips_per_shard: Annotated[int, Option("Approximate number of clips per shard.", minimum=1)] = 500


@dataclass(frozen=True)
class LabelOptions(ClusterOptions):
    """Options of `satpipe psl`, except for those of its segments."""

    out: Annotated[str | Path, Option("Folder of the labels.", flags=("-o", "--out"))]
    teacher: Annotated[str, Option("A model as for `tag --model`, or a Parquet table of scores.")]
    where: Where = ()


__all__ = ["LabelOptions", "PrepareOptions", "SegmentOptions"]
