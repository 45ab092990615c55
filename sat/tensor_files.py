"""Read the weights files of all models; torch is imported only where NumPy cannot read them."""

import pickle
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from satpipe.sat.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, struct.error, RuntimeError, OSError, EOFError,
    ValueError, TypeError, LookupError, AttributeError, AssertionError,
)  # fmt: skip
"""Errors of torch and safetensors on files that are damaged or not checkpoints."""

_QUANTISED = {"int8", "uint8", "int16"}
_OF_NUMPY = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"}  # safetensors


def read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a file as arrays, floating-point ones as float32, and its metadata.

    Args:
        path: A `.safetensors` file, or a pickled state dict, bare or under `model` or `state_dict`.

    Raises:
        CheckpointError: The file is missing or unreadable, contains no state dict, or has quantised or complex weights
            or negative variances; the message names the tensor.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} not found")
    try:
        loaded, metadata = _safetensors(path) if path.suffix == ".safetensors" else (_pickle(path), {})
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint: it is not a pickle file that contains only tensors"
        ) from error
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    state = loaded.get("model", loaded.get("state_dict", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_named_tensor, state.items())):
        raise CheckpointError(f"{path} contains no state dict, neither bare nor under 'model' or 'state_dict'")
    arrays = {name: _array(path, name, value) for name, value in state.items()}
    for name, array in arrays.items():
        if name.endswith("running_var") and (array < 0).any():
            raise CheckpointError(f"{path} is damaged: negative variances in {name}")
    return arrays, metadata


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a file, as `read_arrays` does."""
    import torch

    return {name: torch.from_numpy(array) for name, array in read_arrays(path)[0].items()}


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    name, value = item
    return isinstance(name, str) and hasattr(value, "shape")


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return arrays, or tensors if NumPy lacks a type, and the metadata."""
    with safe_open(path, framework="np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a dict)
    with safe_open(path, framework="np" if kinds <= _OF_NUMPY else "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _pickle(path: Path) -> Any:
    import torch

    with warnings.catch_warnings(action="ignore"):  # about the pickle format
        return torch.load(path, map_location="cpu", weights_only=True)


def _array(path: Path, name: str, value: Any) -> Array:
    """Return an array or tensor as an array, float32 if it has floating-point numbers."""
    kind = str(value.dtype).removeprefix("torch.")
    if kind in _QUANTISED or kind.startswith(("complex", "q")):
        raise CheckpointError(f"{path} cannot be used: {name} is {kind}, but weights must be floating-point numbers")
    if not isinstance(value, np.ndarray):
        value = _dense(path, name, value)
    if not np.issubdtype(value.dtype, np.floating):
        return value  # type: ignore[no-any-return]
    with np.errstate(over="ignore"):  # infinite numbers are found later
        return value.astype(np.float32, copy=False)  # type: ignore[no-any-return]


def _dense(path: Path, name: str, tensor: "Tensor") -> Array:
    if str(tensor.layout) != "torch.strided" or tensor.is_nested:
        raise CheckpointError(f"{path} cannot be used: {name} is sparse or nested, but weights must be dense")
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
