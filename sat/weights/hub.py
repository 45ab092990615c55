"""The bundled model, and the published checkpoints, which are in the cache as `NAME.pt` once they are pulled.

Environment variable:
    SATPIPE_HUB_URL: Folder on a mirror with the published files, instead of the Zenodo record.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from satpipe.sat.errors import CheckpointError, ConfigError
from satpipe.sat.model.config import BUNDLED, CONFIGS, not_found
from satpipe.sat.weights.download import Progress, Source, cache_folder, download, intact, recorded

BUNDLED_CONFIGS = {BUNDLED: "SAT_T_2s", "bundled_1s": "SAT_T_1s"}
"""The same weights for chunks of 2 s, or of 1 s with the first half of the time positions."""
BUNDLED_LICENCE = "Apache-2.0"
RECORD_URL = "https://zenodo.org/record/7964975"
PUBLISHED_LICENCE = "see the Zenodo record"
MAX_BYTES = 2**30  # the largest has 87 million parameters in float32

BUNDLED_PATH = Path(__file__).parents[1] / "data" / "bundled.safetensors"


@dataclass(frozen=True)
class Published:
    """A checkpoint in the paper's Zenodo record."""

    name: str
    """Name of the configuration and of the model."""
    file: str
    map_percent: float
    """mAP on AudioSet's evaluation set, as stated in the file name."""

    @property
    def url(self) -> str:
        """Address of the file."""
        folder = os.environ.get("SATPIPE_HUB_URL") or f"{RECORD_URL}/files"
        return f"{folder.rstrip('/')}/{self.file}?download=1"

    @property
    def path(self) -> Path:
        """Path in the cache."""
        return cache_folder() / f"{self.name}.pt"

    @property
    def present(self) -> bool:
        """True if the checkpoint was pulled; the sha256 is not checked."""
        return bool(recorded(self.path))


PUBLISHED = {
    published.name: published
    for published in (
        Published("SAT_T_2s", "SAT_T_stream2s_mAP_43_34.pt", 43.34),
        Published("SAT_S_2s", "SAT_S_stream2s_mAP_43_37.pt", 43.37),
        Published("SAT_B_2s", "SAT_B_stream2s_mAP_45_29.pt", 45.29),
        Published("SAT_T_1s", "SAT_T_stream1s_mAP_40_11.pt", 40.11),
        Published("SAT_S_1s", "SAT_S_stream1s_mAP_40_55.pt", 40.55),
        Published("SAT_B_1s", "SAT_B_stream1s_mAP_41_37.pt", 41.37),
        Published("audiotransformer_tiny", "audiotransformer_tiny_mAP_44_15.pt", 44.15),
        Published("audiotransformer_small", "audiotransformer_small_mAP_45_68.pt", 45.68),
        Published("audiotransformer_base", "audiotransformer_base_mAP_47_40.pt", 47.40),
    )
}


@dataclass(frozen=True)
class ModelRow:
    """A known model, described without loading it."""

    name: str
    config: str
    parameters: int
    map_percent: float | None
    """Published mAP on AudioSet's evaluation set; the bundled model has none."""
    licence: str
    present: bool
    """True if the model can be used without a download."""


def list_models() -> list[ModelRow]:
    """Return the bundled model with both delays, and the published models."""
    bundled = [
        ModelRow(name, config, CONFIGS[config].parameters, None, BUNDLED_LICENCE, True)
        for name, config in BUNDLED_CONFIGS.items()
    ]
    return bundled + [
        ModelRow(name, name, CONFIGS[name].parameters, published.map_percent, PUBLISHED_LICENCE, published.present)
        for name, published in PUBLISHED.items()
    ]


def pulled(name: str) -> tuple[Path, str]:
    """Return the path in the cache of the published checkpoint `name`, and the URL that it was pulled from.

    Raises:
        CheckpointError: The checkpoint was not pulled, or its file has changed since.
    """
    published = PUBLISHED[name]
    command = f"`satpipe models pull {name}`"
    if not published.path.is_file():
        raise CheckpointError(f"the model '{name}' is not in {cache_folder()}; run {command}")
    if not intact(published.path):
        raise CheckpointError(
            f"{published.path} has changed since it was pulled: its sha256 is not the one in "
            f"{published.name}.json; run {command} again"
        )
    return published.path, str(recorded(published.path).get("url"))


def pull(name: str, progress: Progress | None = None) -> Path:
    """Download a published checkpoint into the cache, unless it is already there.

    See `satpipe.sat.weights.download.download`.

    Args:
        name: Name of the model.
        progress: Called repeatedly during the download.

    Returns:
        Path of the checkpoint.

    Raises:
        ConfigError: No published model has this name; the message suggests similar ones.
        DownloadError: The file could not be downloaded or written, or is another model.
    """
    if name in BUNDLED_CONFIGS:
        raise ConfigError("the bundled model comes with satpipe and need not be pulled")
    if name not in PUBLISHED:
        raise not_found("published model", name, PUBLISHED)
    published = PUBLISHED[name]
    source = Source(published.url, RECORD_URL, "SATPIPE_HUB_URL", f"the checkpoint of {name}", MAX_BYTES)
    download(source, published.path, lambda part: _validate(part, name), progress)
    return published.path


def _validate(path: Path, name: str) -> None:
    """Check that a file is the model called `name`.

    Raises:
        CheckpointError: The file is another model, or not a checkpoint.
    """
    from satpipe.sat.weights.checkpoint import load  # imports torch

    try:
        found = load(path).config.name
    except CheckpointError:  # its shapes may be ambiguous: those of SAT_S_1s and SAT_S_2s are the same
        found = load(path, name).config.name
    if found != name:  # checked here, since a SAT_T_1s can be loaded as a SAT_T_2s
        raise CheckpointError(f"{path} is {found}")
