"""SAT checkpoints on disk: published `.pt` files and safetensors, both with the published tensor names.

Safetensors are read and checked without torch, which is imported only to build a model.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from satpipe.sat.errors import CheckpointError
from satpipe.sat.hashes import sha256_of
from satpipe.sat.model.config import (
    CONFIGS,
    FREQUENCY_PATCHES,
    MEL_BANDS,
    PATCH_BANDS,
    PATCH_FRAMES,
    Cut,
    ModelConfig,
    get_config,
)
from satpipe.sat.taggers.loaded import LoadedTagger
from satpipe.sat.tensor_files import Array, read_arrays

if TYPE_CHECKING:
    import torch
    from satpipe.sat.model.network import SAT
    from satpipe.sat.taggers.sat import SATTagger

_FRONT_END = {"front_end.0.spectrogram.window": "window", "front_end.0.mel_scale.fb": "filterbank"}
_COUNTER = "num_batches_tracked"  # the only tensor of whole numbers
_FRONT_END_TOLERANCE = 1e-3  # half-precision copies of values up to 1 differ by less
_TIME_POSITIONS = "time_pos_embed"


@dataclass(frozen=True, kw_only=True)
class Checkpoint(LoadedTagger):
    """The weights of a SAT, checked against its configuration.

    Attributes:
        config: The configuration that the weights fit.
        tensors: The weights under their published names, float32; the time-position table is that of the file.
    """

    config: ModelConfig
    tensors: dict[str, Array]

    @classmethod
    def of(cls, model: "SAT", sha256: str = "", source: str = "random weights") -> Self:
        """Return the checkpoint of a model in memory."""
        from satpipe.sat.weights.published import to_published

        tensors = {name: tensor.numpy() for name, tensor in to_published(model.state_dict(), model.config).items()}
        return cls(config=model.config, tensors=tensors, sha256=sha256, source=source, metadata={})

    @property
    def state(self) -> "dict[str, torch.Tensor]":
        """A copy of the weights as the state dict of `SAT(config)`."""
        from satpipe.sat.weights.published import state_of

        return state_of(self.tensors, self.config)

    def model(self) -> "SAT":
        """Build the model in evaluation mode."""
        from satpipe.sat.weights.published import model_of

        return model_of(self.tensors, self.config)

    @property
    def has_memory(self) -> bool:
        """True if the model can carry memory from chunk to chunk, even where `config` switches it off."""
        return get_config(self.config.name).streaming

    @property
    def embedding_size(self) -> int:
        """Width of the model."""
        return self.config.width

    def _prepared(
        self, cut: Cut, device: "torch.device | None", precision: str, batch_chunks: int | None, *, embeddings: bool
    ) -> "SATTagger":
        from satpipe.sat.taggers.sat import prepared

        return prepared(self.model(), cut, device, precision, batch_chunks, embeddings=embeddings)


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
    tensors, metadata = read_arrays(path)
    tensors = _check_front_end(path, tensors)
    config = get_config(arch or metadata.get("arch") or _recognise(path, tensors))
    return Checkpoint(
        config=config,
        tensors=_checked(path, tensors, config),
        sha256=sha256_of(path),
        source=str(path),
        metadata=metadata,
    )


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors in a file for `config`."""
    width = config.width
    shapes: dict[str, tuple[int, ...]] = {
        _TIME_POSITIONS: (1, width, 1, config.time_positions),
        "freq_pos_embed": (1, width, FREQUENCY_PATCHES, 1),
    }
    if config.class_token:
        shapes |= {"cls_token": (1, 1, width), "token_pos_embed": (1, width)}
    shapes |= {f"init_bn.1.{name}": (MEL_BANDS,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {f"init_bn.1.{_COUNTER}": ()} | _layer("patch_embed.proj", width, 1, PATCH_BANDS, PATCH_FRAMES)
    for block in range(config.depth):
        attention = {"to_q": 1, "to_kv": 2} if config.streaming else {"qkv": 3}
        shapes |= _layer(f"blocks.{block}.norm1", width)
        for name, parts in attention.items():
            shapes |= _layer(f"blocks.{block}.attn.{name}", parts * width, width)
        shapes |= _layer(f"blocks.{block}.attn.proj", width, width) | _layer(f"blocks.{block}.norm2", width)
        shapes |= _layer(f"blocks.{block}.mlp.fc1", 4 * width, width) | _layer(
            f"blocks.{block}.mlp.fc2", width, 4 * width
        )
    return (
        shapes | _layer("norm", width) | _layer("outputlayer.0", width) | _layer("outputlayer.1", config.classes, width)
    )


def _layer(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def _check_front_end(path: Path, tensors: dict[str, Array]) -> dict[str, Array]:
    """Remove the front end's buffers, which published files contain, after comparing them with ours."""
    if not _FRONT_END.keys() & tensors.keys():
        return tensors
    from satpipe.sat.model.frontend import LogMel

    log_mel = LogMel()
    for name, buffer in _FRONT_END.items():
        if name in tensors:
            ours, theirs = getattr(log_mel, buffer).numpy(), tensors[name]
            if theirs.shape != ours.shape or not np.allclose(theirs, ours, atol=_FRONT_END_TOLERANCE):
                raise CheckpointError(f"{path} was trained with another front end: its {name} differs")
    return {name: tensor for name, tensor in tensors.items() if name not in _FRONT_END}


def _recognise(path: Path, tensors: Mapping[str, Array]) -> str:
    """Return the name of the only configuration whose shapes are those of the file."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    fits = [name for name, config in CONFIGS.items() if published_shapes(config).items() <= shapes.items()]
    if len(fits) == 1:
        return fits[0]
    problem = f"fits {' and '.join(fits)}" if fits else "fits no configuration exactly"
    raise CheckpointError(f"{path} {problem}; choose one with --arch ({', '.join(fits or CONFIGS)})")


def _checked(path: Path, tensors: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    """Return the tensors that the configuration needs, after checking their shapes, types and values."""
    wanted = published_shapes(config)
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise CheckpointError(f"{path} is not {config.name}: {_some(missing)} missing")
    wrong = [
        f"{name} is {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if tensors[name].shape != shape and not (name == _TIME_POSITIONS and _can_be_fitted(tensors[name], shape))
    ]
    if wrong:
        raise CheckpointError(f"{path} is not {config.name}: {_some(wrong)}")
    others = [name for name in wanted if tensors[name].dtype != np.float32 and not name.endswith(_COUNTER)]
    if others:
        raise CheckpointError(f"{path} cannot be used: {_some(others)} must be floating-point numbers")
    broken = [name for name in wanted if not np.isfinite(tensors[name]).all()]
    if broken:
        raise CheckpointError(f"{path} is damaged: NaN or infinite numbers in {_some(broken)}")
    surplus = sorted(set(tensors) - set(wanted))
    if surplus:
        warnings.warn(f"{path}: {', '.join(surplus)} ignored: not part of {config.name}", stacklevel=3)
    return {name: tensors[name] for name in wanted}


def _can_be_fitted(table: Array, shape: tuple[int, ...]) -> bool:
    """Return True if `fit_time_positions` makes a table of that shape."""
    return table.ndim == len(shape) and table.shape[-1] > 0 and table.shape[:-1] == shape[:-1]


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
