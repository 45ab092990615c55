"""SAT checkpoints on disk: published `.pt` files and safetensors, both with the published tensor names."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from satpipe.sat.errors import CheckpointError
from satpipe.sat.hashes import sha256_of
from satpipe.sat.model.batching import batch_chunks_for
from satpipe.sat.model.config import CONFIGS, Cut, ModelConfig, get_config
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.taggers.interface import LoadedTagger
from satpipe.sat.taggers.sat import SATTagger
from satpipe.sat.tensor_files import read_tensors
from torch import Tensor
from torch.nn import functional as F

_FRONT_END = {"front_end.0.spectrogram.window": "window", "front_end.0.mel_scale.fb": "filterbank"}
_COUNTER = "num_batches_tracked"  # the only tensor of whole numbers
_FRONT_END_TOLERANCE = 1e-3  # half-precision copies of values up to 1 differ by less
_RENAMED = {"init_bn.": "init_bn.1.", "patch_embed.": "patch_embed.proj."}  # model's prefix -> published prefix


@dataclass(frozen=True, kw_only=True)
class Checkpoint(LoadedTagger):
    """The weights of a SAT, checked against its configuration.

    Attributes:
        config: The configuration that the weights fit.
        state: State dict of `SAT(config)`, float32.
    """

    config: ModelConfig
    state: dict[str, Tensor]

    def model(self) -> SAT:
        """Build the model in evaluation mode."""
        model = SAT(self.config)
        model.load_state_dict(self.state)
        return model.eval()

    @property
    def has_memory(self) -> bool:
        """True if the model can carry memory from chunk to chunk, even where `config` switches it off."""
        return get_config(self.config.name).streaming

    @property
    def embedding_size(self) -> int:
        """Width of the model."""
        return self.config.width

    def _prepared(
        self, cut: Cut, device: torch.device, precision: str, batch_chunks: int | None, *, embeddings: bool
    ) -> SATTagger:
        model = self.model().to(device).to_precision(dtype_for(precision, device))
        return SATTagger(model, cut, device, batch_chunks or batch_chunks_for(device), embeddings=embeddings)


def load(path: str | Path, arch: str | None = None) -> Checkpoint:
    """Read a checkpoint and check each tensor against the configuration.

    Args:
        path: A `.safetensors` file, or a `.pt` file with a state dict, bare or under `model`.
        arch: Name of the configuration; by default the one that the file states, or the one whose shapes fit.

    Raises:
        CheckpointError: The file cannot be read, or a tensor is missing or has another shape; the message names it.
        ConfigError: `arch` is not a configuration.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    tensors = _check_front_end(path, tensors)
    config = get_config(arch or metadata.get("arch") or _recognise(path, tensors))
    return Checkpoint(
        config=config,
        state=_fit(path, tensors, config),
        sha256=sha256_of(path),
        source=str(path),
        metadata=metadata,
    )


def save(model: SAT, path: str | Path, dtype: torch.dtype = torch.float32, **metadata: str) -> None:
    """Write a model as safetensors with the published tensor names; `metadata` goes into the file's header.

    Raises:
        ValueError: The path does not end in `.safetensors`.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"the name of a checkpoint must end in .safetensors, not {path}")
    published = to_published(model.state_dict(), model.config)
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in published.items()}
    save_file(tensors, path, metadata={"arch": model.config.name, **metadata})


def to_published(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Rename a model's state dict to the published names; in streaming models, queries are a separate tensor there."""
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
    """Return the model's state dict for published names: the inverse of `to_published`."""
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
    """Return the names and shapes of the tensors in a file for `config`."""
    with torch.device("meta"):
        state = SAT(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in to_published(state, config).items()}


def _check_front_end(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the front end's buffers, which published files contain, after comparing them with ours."""
    log_mel = LogMel()
    for name, buffer in _FRONT_END.items():
        if name in tensors:
            ours = getattr(log_mel, buffer)
            theirs = tensors[name].float()
            if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=_FRONT_END_TOLERANCE):
                raise CheckpointError(f"{path} was trained with another front end: its {name} differs")
    return {name: tensor for name, tensor in tensors.items() if name not in _FRONT_END}


def _recognise(path: Path, tensors: dict[str, Tensor]) -> str:
    """Return the name of the only configuration whose shapes are those of the file."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fits = [name for name, config in CONFIGS.items() if published_shapes(config).items() <= shapes.items()]
    if len(fits) == 1:
        return fits[0]
    problem = f"fits {' and '.join(fits)}" if fits else "fits no configuration exactly"
    raise CheckpointError(f"{path} {problem}; choose one with --arch ({', '.join(fits or CONFIGS)})")


def _fit(path: Path, tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Check names and shapes, fit the time-position table and return the model's state dict."""
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
    others = [name for name in wanted if not tensors[name].is_floating_point() and not name.endswith(_COUNTER)]
    if others:
        raise CheckpointError(f"{path} cannot be used: {_some(others)} must be floating-point numbers")
    broken = [name for name in wanted if not torch.isfinite(tensors[name]).all()]
    if broken:
        raise CheckpointError(f"{path} is damaged: NaN or infinite numbers in {_some(broken)}")
    surplus = sorted(set(tensors) - set(wanted))
    if surplus:
        warnings.warn(f"{path}: {', '.join(surplus)} ignored: not part of {config.name}", stacklevel=3)
    return from_published({name: tensors[name] for name in wanted})


def fit_time_positions(table: Tensor, positions: int) -> Tensor:
    """Cut a time-position table to a length, or stretch it bilinearly.

    Shape:
        [1, D, 1, any] -> [1, D, 1, positions]
    """
    if table.shape[-1] >= positions:
        return table[..., :positions]
    return F.interpolate(table, size=(1, positions), mode="bilinear")


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
