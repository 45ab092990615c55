"""Options of `satpipe learn` and `satpipe classify`."""

from dataclasses import dataclass
from typing import Annotated

from satpipe.jobs.options.tag import MODEL
from satpipe.pipeline.option import Option, Options
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import BUNDLED

OWN_FILE = "own.safetensors"


@dataclass(frozen=True)
class LearnOptions(Options):
    """Options of `satpipe learn`."""

    recordings: Annotated[
        str | None, Option("Folder of the labelled recordings, if they are not beside the labels.", metavar="FOLDER")
    ] = None
    embeddings_from: Annotated[
        str | None,
        Option("Output folder of `tag --embeddings` with the labelled recordings; no audio is read.", metavar="OUT"),
    ] = None
    model: Annotated[str, Option(MODEL, metavar="NAME|PATH|NAME:WEIGHTS")] = BUNDLED
    arch: Annotated[
        str | None, Option("Configuration of the model, if its file does not name one.", metavar="NAME")
    ] = None
    seed: Annotated[int, Option("Random seed of the cross-validation and the intervals.", minimum=0)] = 0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: Options contradict each other.
        """
        super().__post_init__()
        if self.embeddings_from and self.recordings:
            raise ConfigError("--embeddings-from reads no audio: leave out --recordings")
        if self.embeddings_from and (self.model != BUNDLED or self.arch):
            raise ConfigError("--embeddings-from uses the model of that folder: leave out --model and --arch")
