"""Load taggers other than SAT, from files here or at Hugging Face."""

import hashlib
import warnings
from importlib.metadata import EntryPoint, version
from pathlib import Path

import torch
from satpipe.sat.errors import CheckpointError, ConfigError, DownloadError, install
from satpipe.sat.hashes import sha256_of
from satpipe.sat.taggers.interface import LoadedExternalTagger, Tagger
from satpipe.sat.taggers.loaded import ExternalConfig
from satpipe.sat.tensor_files import UNREADABLE

_HUB = "hf://"
_EFFICIENTAT_TENSOR = "features.0.0.weight"  # occurs in no other model's file


def load_external(entry: EntryPoint, weights: str | None, *, random: bool = False) -> LoadedExternalTagger:
    """Load a tagger other than SAT; raises what `satpipe.sat.weights.registry.resolve` raises.

    Args:
        entry: Names the tagger's class.
        weights: A path, or `hf://OWNER/REPOSITORY[/FILE]`; None: none are named.
        random: Use random weights if none are named.
    """
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


def is_efficientat(path: str) -> bool:
    """Return True for a `.pt` file of EfficientAT, which can be named by its path alone."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about unusual tensors
            state = torch.load(path, map_location="meta", weights_only=True)
    except UNREADABLE:
        return False  # `load_checkpoint` reports the problem
    return isinstance(state, dict) and _EFFICIENTAT_TENSOR in state
