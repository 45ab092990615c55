"""Weights on disk: the published `.pt` files and safetensors, in the published files' tensor names."""

import hashlib
import pickle
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.batching import batch_chunks_for
from satpipe.sat.model.config import CONFIGS, ModelConfig, get_config
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.model.streaming import Cut
from satpipe.sat.taggers.interface import CPU
from satpipe.sat.taggers.sat import SATTagger
from torch import Tensor
from torch.nn import functional as F

_FRONT_END = {"front_end.0.spectrogram.window": "window", "front_end.0.mel_scale.fb": "filterbank"}
_FRONT_END_TOLERANCE = 1e-3  # half-precision copies of values up to 1 are this close
_RENAMED = {"init_bn.": "init_bn.1.", "patch_embed.": "patch_embed.proj."}  # model's prefix -> published prefix

# What torch and safetensors raise on files that are damaged, or no checkpoints at all.
_UNREADABLE = (
    SafetensorError, struct.error, RuntimeError, OSError, EOFError,
    ValueError, TypeError, LookupError, AttributeError, AssertionError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """Weights that fit their configuration.

    Attributes:
        config: The configuration they fit.
        state: State dict of `SAT(config)`, float32.
        sha256: Of the file.
        source: Where they came from, for people.
        metadata: What the file says about itself (safetensors only).
    """

    config: ModelConfig
    state: dict[str, Tensor]
    sha256: str
    source: str
    metadata: dict[str, str]

    def model(self) -> SAT:
        """Build the model in evaluation mode."""
        model = SAT(self.config)
        model.load_state_dict(self.state)
        return model.eval()

    @property
    def remembers(self) -> bool:
        """Whether the model has a memory, on or off."""
        return get_config(self.config.name).streaming

    def tagger(
        self,
        cut: Cut = "gapless",
        device: torch.device = CPU,
        precision: str = "fp32",
        batch_chunks: int | None = None,
    ) -> SATTagger:
        """Build the model, ready to tag.

        Raises:
            ConfigError: The device is not made for that precision.
        """
        model = self.model().to(device).with_precision(dtype_for(precision, device))
        return SATTagger(model, cut, device, batch_chunks or batch_chunks_for(device))


def load(path: str | Path, arch: str | None = None) -> Checkpoint:
    """Read a checkpoint and check every tensor against its configuration.

    Args:
        path: A `.safetensors` file, or a `.pt` file with a state dict, bare or under `model`.
        arch: Name of the configuration; by default what the file says, or the one whose shapes fit.

    Raises:
        CheckpointError: The file cannot be read, or a tensor is missing or of another shape; it is named.
        ConfigError: `arch` is not a configuration.
    """
    path = Path(path)
    tensors, metadata = read(path)
    tensors = _check_front_end(path, tensors)
    config = get_config(arch or metadata.get("arch") or _recognise(path, tensors))
    return Checkpoint(config, _fit(path, tensors, config), sha256_of(path), str(path), metadata)


def save(model: SAT, path: str | Path, dtype: torch.dtype = torch.float32, **metadata: str) -> None:
    """Write a model as safetensors under the published tensor names; `metadata` goes into the file's header.

    Raises:
        ValueError: The path does not end in `.safetensors`.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"{path}: a checkpoint is written as .safetensors")
    published = to_published(model.state_dict(), model.config)
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in published.items()}
    save_file(tensors, path, metadata={"arch": model.config.name, **metadata})


def to_published(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename a model's state dict to the published names; streaming files keep queries apart from keys and values."""
    published = {}
    for name, tensor in state.items():
        for ours, theirs in _RENAMED.items():
            name = name.replace(ours, theirs)
        if config.streaming and ".qkv." in name:
            published[name.replace(".qkv.", ".to_q.")] = tensor[: config.width].contiguous()
            published[name.replace(".qkv.", ".to_kv.")] = tensor[config.width :].contiguous()
        else:
            published[name] = tensor.contiguous()
    return published


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_published`."""
    state = {}
    for name, tensor in tensors.items():
        for ours, theirs in _RENAMED.items():
            name = name.replace(theirs, ours)
        if ".to_q." in name:
            keys_values = tensors[name.replace(".to_q.", ".to_kv.")]
            state[name.replace(".to_q.", ".qkv.")] = torch.cat([tensor, keys_values])
        elif ".to_kv." not in name:
            state[name] = tensor
    return state


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a file for `config` holds."""
    with torch.device("meta"):
        state = SAT(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in to_published(state, config).items()}


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as a hexadecimal string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file as float32 (counters as they are), and its metadata.

    Raises:
        CheckpointError: There is no such file, or it holds no state dict.
    """
    metadata: dict[str, str] = {}
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        else:
            with warnings.catch_warnings(action="ignore"):  # torch's, on how the file was pickled
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: no pickle, or one of more than tensors") from error
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    state = loaded.get("model", loaded.get("state_dict", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict, neither bare nor under 'model'")
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}, metadata


def _check_front_end(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compare the front end's buffers that published files carry with ours, and drop them."""
    log_mel = LogMel()
    for name, buffer in _FRONT_END.items():
        if name in tensors:
            ours = getattr(log_mel, buffer)
            if tensors[name].shape != ours.shape or not torch.allclose(tensors[name], ours, atol=_FRONT_END_TOLERANCE):
                raise CheckpointError(
                    f"{path}: {name} differs from this front end's; the model was made for another one"
                )
    return {name: tensor for name, tensor in tensors.items() if name not in _FRONT_END}


def _recognise(path: Path, tensors: dict[str, Tensor]) -> str:
    """Name the one configuration whose shapes are those of the file."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fits = [name for name, config in CONFIGS.items() if published_shapes(config).items() <= shapes.items()]
    if len(fits) == 1:
        return fits[0]
    problem = f"fits {' and '.join(fits)}" if fits else "fits no configuration as it is"
    raise CheckpointError(f"{path} {problem}; say which it is with --arch ({', '.join(fits or CONFIGS)})")


def _fit(path: Path, tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Check names and shapes, fit the time-position table, return the state dict of the model."""
    wanted = published_shapes(config)
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise CheckpointError(f"{path} is not {config.name}: {_some(missing)} missing")
    table = tensors["time_pos_embed"]
    if table.ndim == 4 and table.shape[-1] and table.is_floating_point():
        tensors = {**tensors, "time_pos_embed": fit_time_positions(table, config.time_positions)}
    wrong = [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(f"{path} is not {config.name}: {_some(wrong)}")
    broken = [name for name in wanted if not torch.isfinite(tensors[name]).all()]
    if broken:
        raise CheckpointError(f"{path} is damaged: NaN or infinite numbers in {_some(broken)}")
    surplus = sorted(set(tensors) - set(wanted))
    if surplus:
        warnings.warn(f"{path}: {config.name} has no place for {', '.join(surplus)}; left out", stacklevel=3)
    return from_published({name: tensors[name] for name in wanted})


def fit_time_positions(table: Tensor, positions: int) -> Tensor:
    """Cut a time-position table, or stretch it bilinearly.

    Shape:
        [1, D, 1, any] -> [1, D, 1, positions]
    """
    if table.shape[-1] >= positions:
        return table[..., :positions]
    return F.interpolate(table, size=(1, positions), mode="bilinear")


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
