"""Options of `satpipe prepare`, `psl` and `train-bundled`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from satpipe.jobs.options.tag import ClusterOptions
from satpipe.pipeline.option import Option, Options
from satpipe.sat.model.config import BUNDLED

Where = Annotated[
    tuple[tuple[str, str], ...], Option("Use only rows of the table with this value.", metavar="COLUMN=VALUE")
]


@dataclass(frozen=True)
class PrepareOptions(ClusterOptions):
    """Options of `satpipe prepare`."""

    out: Annotated[str | Path, Option("Folder of the training set.", flags=("-o", "--out"))]
    table: Annotated[Path | None, Option("Labels: a CSV or TSV with a header.", metavar="FILE")] = None
    segments: Annotated[Path | None, Option("Labels: one of AudioSet's CSV files.", metavar="FILE")] = None
    where: Where = ()
    clips_per_shard: Annotated[int, Option("Approximate number of clips per shard.", minimum=1)] = 500


@dataclass(frozen=True)
class LabelOptions(ClusterOptions):
    """Options of `satpipe psl`, except those of its segments."""

    out: Annotated[str | Path, Option("Folder of the labels.", flags=("-o", "--out"))]
    teacher: Annotated[str | None, Option("A model as for `tag --model`, or a Parquet table of scores.")] = None
    strong: Annotated[
        str | None,
        Option("Your own labels instead of a teacher's: files as for `evaluate --strong`.", metavar="TSV|FOLDER"),
    ] = None
    where: Where = ()
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Where the teacher runs.")] = "auto"


@dataclass(frozen=True)
class BundledOptions(Options):
    """Options of `satpipe train-bundled`."""

    teacher: Annotated[str | None, Option("EfficientAT's weights, which label views during training.")] = None
    out: Annotated[str | Path, Option("Folder of the training sets and runs.", flags=("-o", "--out"))] = (
        "build/train-bundled"
    )
    extra: Annotated[
        tuple[str, ...],
        Option(
            "Folder of `satpipe extra-audio`, of `satpipe formula-audio` or a similar one; the teacher labels it.",
            metavar="DIR",
        ),
    ] = ()
    recipe: Annotated[str, Option("Configuration of stage sat, as for `satpipe train`; it names the run's folder.")] = (
        BUNDLED
    )
    init: Annotated[str | None, Option("Weights to start from, such as `bundled`; by default random weights.")] = None
    overrides: Annotated[
        tuple[str, ...], Option("Override a key of the recipe.", metavar="KEY=VALUE", flags=("--set",))
    ] = ()
    full_context: Annotated[
        bool, Option("Instead fine-tune a full-context model from the bundled one, on the sets of an earlier run.")
    ] = False
