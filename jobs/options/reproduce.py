"""Options of `satpipe reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from satpipe.pipeline.option import Option, Options

Gpu = Literal["h100", "h200", "a100", "l40s", "rtx4090", "l4"]
SIZES = ("tiny", "small", "base")
DELAYS = ("2", "1")


@dataclass(frozen=True)
class ReproduceOptions(Options):
    """Options of `satpipe reproduce`."""

    audioset: Annotated[
        Path, Option("Folder of AudioSet; the page on training states what it must contain.", metavar="DIR")
    ]
    out: Annotated[str | Path, Option("Folder of training sets, models and tables.", flags=("-o", "--out"))] = (
        "reproduced"
    )
    from_checkpoints: Annotated[
        Path | None, Option("Train nothing; evaluate the published checkpoints in this folder.", metavar="DIR")
    ] = None
    sizes: Annotated[
        str, Option("Sizes of the models to train; the largest labels pieces for the others.", metavar="SIZE,...")
    ] = ",".join(SIZES)
    delays: Annotated[str, Option("Rows of Tables 2 and 3 to make, by delay in seconds.", metavar="S,...")] = ",".join(
        DELAYS
    )
    recipes: Annotated[
        Path | None,
        Option(
            "Folder of configurations that replace those of the same name, such as sat_tiny_2s.yaml.", metavar="DIR"
        ),
    ] = None
    gpus: Annotated[
        int | None,
        Option("Number of trainings at the same time, each on one GPU; by default one per GPU found.", minimum=1),
    ] = None
    address: Annotated[
        str | None, Option("Address of a running Ray cluster; by default Ray is started here for the run.")
    ] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Where models run.")] = "auto"
    plan: Annotated[bool, Option("Print the steps with their hours and disk space, and start nothing.")] = False
    gpu: Annotated[Gpu, Option("Kind of GPU for the hours of --plan.")] = "h100"
