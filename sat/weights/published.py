"""The published tensor names: a model's weights under them, and back."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from satpipe.sat.model.config import ModelConfig
from satpipe.sat.model.network import SAT
from satpipe.sat.tensor_files import Array
from torch import Tensor
from torch.nn import functional as F

_RENAMED = {"init_bn.": "init_bn.1.", "patch_embed.": "patch_embed.proj."}  # model's prefix -> published prefix


def model_of(tensors: Mapping[str, Array], config: ModelConfig) -> SAT:
    """Build the model with published tensors, in evaluation mode."""
    with torch.device("meta"):  # no random weights: they would be replaced
        model = SAT(config)
    model.load_state_dict(state_of(tensors, config), assign=True)
    return model.eval()


def state_of(tensors: Mapping[str, Array], config: ModelConfig) -> dict[str, Tensor]:
    """Return a copy of published tensors as the state dict of `SAT(config)`; the time-position table is fitted."""
    state = from_published({name: torch.tensor(array) for name, array in tensors.items()})
    return state | {"time_pos_embed": fit_time_positions(state["time_pos_embed"], config.time_positions)}


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


def fit_time_positions(table: Tensor, positions: int) -> Tensor:
    """Cut a time-position table to a length, or stretch it bilinearly.

    Shape:
        [1, D, 1, any] -> [1, D, 1, positions]
    """
    if table.shape[-1] >= positions:
        return table[..., :positions].contiguous()
    return F.interpolate(table, size=(1, positions), mode="bilinear")
