"""Models and taggers by name: SAT, other published taggers, and those that other packages register.

All commands name a model by one string: a name or path for `load_checkpoint`; or `NAME:WEIGHTS`, where NAME is an
external tagger or an entry point of the group `satpipe.taggers`, and WEIGHTS a path or `hf://OWNER/REPOSITORY[/FILE]`,
which is then downloaded from Hugging Face. Nothing is imported or downloaded before it is named.
"""

import hashlib
import pickle
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoint, version
from pathlib import Path

import torch
from satpipe.sat.errors import CheckpointError, ConfigError, DownloadError, install
from satpipe.sat.hashes import sha256_of
from satpipe.sat.model.config import BUNDLED, BUNDLED_SOURCE, Combine, not_found
from satpipe.sat.model.network import SAT
from satpipe.sat.taggers.interface import ExternalConfig, LoadedExternalTagger, LoadedTagger, Tagger
from satpipe.sat.weights import hub
from satpipe.sat.weights.checkpoint import Checkpoint, load
from satpipe.sat.weights.external import external_taggers

_HUB = "hf://"
_EFFICIENTAT_TENSOR = "features.0.0.weight"  # occurs in no other model's file


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


def load_model(model: str = BUNDLED, arch: str | None = None, *, grids: int = 1, combine: Combine = "geometric") -> SAT:
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
        return _load(external[name], weights or None, random=random)
    if colon and not weights.startswith("//") and not Path(model).exists():
        raise not_found("tagger", name, external)
    if arch is None and _is_efficientat(model):
        return _load(external["efficientat"], model, random=False)
    return load_checkpoint(model, arch)


def _load(entry: EntryPoint, weights: str | None, *, random: bool) -> LoadedExternalTagger:
    name = entry.name
    try:
        made_by = entry.load()
    except (ImportError, AttributeError) as error:
        package = entry.dist.name if entry.dist else "satpipe"
        raise ConfigError(f"the tagger '{name}' of {package} cannot be imported: {error}") from error
    if weights is None and not random and getattr(made_by, "needs_weights", False):
        raise CheckpointError(f"{name} needs weights: {name}:{made_by.weights_example}")
    path = None if weights is None else _path(weights)
    tagger = made_by(path)
    if not isinstance(tagger, Tagger):
        raise ConfigError(f"the entry point '{name}' must return a satpipe Tagger, not a {type(tagger).__name__}")
    tagger.order  # noqa: B018  (raises LabelError if a class is missing)
    longest_ms = round(1000 * tagger.longest_s)
    config = ExternalConfig(name, tagger.rate_hz, longest_ms, longest_ms, tagger.shortest_ms, tagger.warmup_chunks)
    metadata = {package: version(package) for package in tagger.packages}
    code = f"{made_by.__module__}:{made_by.__qualname__}"
    source = f"{name} from {weights}" if weights else f"{name}, {'random weights' if random else code}"
    return LoadedExternalTagger(
        config=config.with_delay(tagger.delay_s),
        instance=tagger,
        sha256=sha256_of(path) if path else hashlib.sha256(code.encode()).hexdigest(),
        source=source,
        metadata=metadata,
    )


def _path(weights: str) -> Path:
    if weights.startswith(_HUB):
        return _fetched(weights)
    path = Path(weights)
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} not found")
    return path


def _fetched(weights: str) -> Path:
    """Download weights from Hugging Face into its cache, unless they are there; return their path."""
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise ConfigError(f"{weights} needs huggingface_hub; {install('taggers')}") from error
    owner, _, rest = weights.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    try:
        if file:
            return Path(hf_hub_download(f"{owner}/{repository}", file))
        return Path(snapshot_download(f"{owner}/{repository}", allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, HFValidationError) as error:  # all errors of a download are one of these
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(
            f"{weights} could not be downloaded: {reason}; you can name a local file or folder instead"
        ) from error


def _is_efficientat(path: str) -> bool:
    """Return True for a file of EfficientAT, which can be named by its path alone."""
    if not path.endswith(".pt") or not Path(path).is_file():
        return False
    try:
        with warnings.catch_warnings(action="ignore"):  # about unusual tensors
            state = torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError):
        return False  # `load_checkpoint` reports the problem
    return isinstance(state, dict) and _EFFICIENTAT_TENSOR in state
