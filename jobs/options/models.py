"""Options of `satpipe export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from satpipe.pipeline.option import Option, Options


@dataclass(frozen=True)
class ExportOptions(Options):
    """Options of `satpipe export`."""

    model: str
    out: Annotated[Path, Option("File to write.", flags=("-o", "--out"))]
    format: Annotated[Literal["onnx", "torchscript"], Option("File format.")] = "onnx"
    int8: Annotated[bool, Option("8-bit weights: a third of the size; scores change slightly.")] = False
    arch: Annotated[
        str | None, Option("Configuration of the model, if its file does not name one.", metavar="NAME")
    ] = None
    delay_s: Annotated[float | None, Option("Seconds that a full-context model reads per chunk.")] = None
    check: Annotated[tuple[str, ...], Option("Recordings to compare the scores on.", metavar="INPUT")] = ()
