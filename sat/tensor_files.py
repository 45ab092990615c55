"""Read the weights files of all models."""

import pickle
import struct
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from satpipe.sat.errors import CheckpointError
from torch import Tensor

# Errors of torch and safetensors on files that are damaged or not checkpoints.
_UNREADABLE = (
    SafetensorError, struct.error, RuntimeError, OSError, EOFError,
    ValueError, TypeError, LookupError, AttributeError, AssertionError,
)  # fmt: skip

_QUANTISED = (torch.int8, torch.uint8, torch.int16)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, floating-point ones as float32, and its metadata.

    Args:
        path: A `.safetensors` file, or a pickled state dict, bare or under `model` or `state_dict`.

    Raises:
        CheckpointError: The file is missing or unreadable, contains no state dict, or has quantised or complex weights
            or negative variances; the message names the tensor.
    """
    metadata: dict[str, str] = {}
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} not found")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        else:
            with warnings.catch_warnings(action="ignore"):  # about the pickle format
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint: it is not a pickle file that contains only tensors"
        ) from error
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    state = loaded.get("model", loaded.get("state_dict", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} contains no state dict, neither bare nor under 'model' or 'state_dict'")
    for name, tensor in state.items():
        if tensor.is_complex() or tensor.is_quantized or tensor.dtype in _QUANTISED:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{path} cannot be used: {name} is {kind}, but weights must be floating-point numbers"
            )
        if tensor.layout != torch.strided or tensor.is_nested:
            raise CheckpointError(f"{path} cannot be used: {name} is sparse or nested, but weights must be dense")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(f"{path} is damaged: negative variances in {name}")
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}, metadata
