"""Models and taggers by name: SAT, other published taggers, and those that other packages register.

All commands name a model by one string: a name or path for `load_checkpoint`; or `NAME:WEIGHTS`, where NAME is an
external tagger or an entry point of the group `satpipe.taggers`, and WEIGHTS a path or `hf://OWNER/REPOSITORY[/FILE]`,
which is then downloaded from Hugging Face. Nothing is imported or downloaded before it is named.
torch is imported for models whose weights are not safetensors.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import BUNDLED, BUNDLED_SOURCE, Combine, not_found
from satpipe.sat.taggers.loaded import LoadedTagger
from satpipe.sat.weights import hub
from satpipe.sat.weights.checkpoint import Checkpoint, load
from satpipe.sat.weights.external import external_taggers

if TYPE_CHECKING:
    from satpipe.sat.model.network import SAT


def load_checkpoint(model: str, arch: str | None = None) -> Checkpoint:
    """Load a SAT by name or path.

    Args:
        model: `bundled` or `bundled_1s`, the name of a published model that was pulled, or the path of a `.pt` or
            `.safetensors` file.
        arch: Name of the configuration, for a file that does not state it and whose shapes fit several.

    Raises:
        CheckpointError: The published model was not pulled or has changed since, or the file is not a checkpoint of
            that configuration.
        ConfigError: The model is unknown (the message suggests similar ones), or `arch` contradicts the name.
    """
    own_arch = hub.BUNDLED_CONFIGS.get(model, model)
    if (model in hub.BUNDLED_CONFIGS or model in hub.PUBLISHED) and arch not in (None, own_arch):
        raise ConfigError(f"the model '{model}' is a {own_arch}, not a {arch}; omit --arch")
    if model in hub.BUNDLED_CONFIGS:
        return replace(load(hub.BUNDLED_PATH, own_arch), source=BUNDLED_SOURCE)
    if model in hub.PUBLISHED:
        path, url = hub.pulled(model)
        return replace(load(path, model), source=f"{model} from {url}")
    path = Path(model)
    if path.suffix in {".pt", ".safetensors"} or path.exists():
        return load(path, arch)
    raise not_found("model or file", model, [*hub.BUNDLED_CONFIGS, *hub.PUBLISHED])


def load_model(
    model: str = BUNDLED, arch: str | None = None, *, grids: int = 1, combine: Combine = "geometric"
) -> "SAT":
    """Load the network of a SAT.

    >>> import torch
    >>> model = satpipe.load_model("bundled")
    >>> satpipe.StreamingTagger(model).push(torch.zeros(40_000)).shape
    torch.Size([1, 527])

    Args:
        model: As for `satpipe tag --model`, except for external taggers.
        arch: Name of the configuration, for a file that does not state it and whose shapes fit several.
        grids: As for `satpipe tag --grids`; `StreamingTagger` then gives the scores of stretches.
        combine: As for `satpipe tag --combine`.

    Raises:
        CheckpointError: The published model was not pulled or has changed since, or the file is not a checkpoint of
            that configuration.
        ConfigError: The model is unknown (the message suggests similar ones), `arch` contradicts the name, or `grids`
            does not divide the model's chunk.
    """
    return load_checkpoint(model, arch).adapted(grids=grids, combine=combine).model()


def resolve(model: str, arch: str | None = None, *, random: bool = False) -> LoadedTagger:
    """Load a model or tagger.

    Args:
        model: As for `load_checkpoint`; or NAME:WEIGHTS, or the NAME of a tagger without weights.
        arch: As for `load_checkpoint`.
        random: Use random weights for an external tagger that is named without weights.

    Raises:
        CheckpointError: The weights are missing, or belong to another model.
        ConfigError: The model is unknown, or a package that it needs is not installed.
        DownloadError: Weights could not be downloaded from Hugging Face.
        LabelError: The outputs are not AudioSet's 527 classes.
    """
    name, colon, weights = model.partition(":")
    external = external_taggers()
    if name in external:
        if arch:
            raise ConfigError(f"--arch applies only to SAT; omit it for '{name}'")
        from satpipe.sat.weights.external_files import load_external  # imports torch

        return load_external(external[name], weights or None, random=random)
    if colon and not weights.startswith("//") and not Path(model).exists():
        raise not_found("tagger", name, external)
    if arch is None and model.endswith(".pt") and Path(model).is_file():
        from satpipe.sat.weights.external_files import is_efficientat, load_external

        if is_efficientat(model):
            return load_external(external["efficientat"], model)
    return load_checkpoint(model, arch)
