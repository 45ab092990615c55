"""The cost of running a model: operations and memory, counted while it runs.

Operations are those of matrix products, convolutions and attention, two per multiply-add. Memory is that of the tensors
that operations create and that are alive at the same time, each storage counted once. Parameters, the input and the
workspace inside an operation do not count.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from satpipe.sat.errors import ConfigError
from satpipe.sat.taggers.interface import Tagger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten
MARGIN = 1.02  # batches of other recordings may need slightly more memory than the batches measured
_LINEAR = (aten.addmm, aten.addmm_, aten.mm, aten.convolution)
_LAYERS = {*_LINEAR, aten.native_layer_norm, aten._native_batch_norm_legit_no_training, aten.native_batch_norm}


@dataclass(frozen=True)
class Cost:
    """Cost of a run.

    Attributes:
        flops: Operations of all products.
        linear_flops: Operations of linear layers and convolutions only, without the products of attention.
        peak_bytes: Peak memory of tensors alive at the same time.
        layer_bytes: Total output size of all linear, convolution and normalisation layers.
    """

    flops: int
    linear_flops: int
    peak_bytes: int
    layer_bytes: int


def cost(run: Callable[[], Any]) -> Cost:
    """Call `run` and return its cost."""
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            aten.addmm_: _product_flops,
        },
    )
    with TensorMemory() as memory, counter:
        run()
    flops = counter.get_flop_counts().get("Global", {})
    linear = sum(flops.get(operation, 0) for operation in _LINEAR)
    return Cost(counter.get_total_flops(), linear, memory.peak_bytes, memory.layer_bytes)


def _product_flops(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)  # type: ignore[no-any-return]


class TensorMemory(TorchDispatchMode):
    """Tracks `peak_bytes` and `layer_bytes`, as in `Cost`, of the operations that run while the mode is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = self.layer_bytes = 0
        self._bytes = 0
        self._alive: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record the storages it creates; a composite operation is run as its parts."""
        kwargs = kwargs or {}
        if func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._bytes += storage.nbytes()
                self._alive[storage._cdata] = weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        if func.overloadpacket in _LAYERS:
            first = tree_leaves(result)[0]
            self.layer_bytes += first.numel() * first.element_size()
        return result

    def _forget(self, key: int, size_bytes: int) -> None:
        self._bytes -= size_bytes
        del self._alive[key]


def _storages(values: Any) -> Iterator[Any]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def noise_chunks(tagger: Tagger, count: float, seed: int = 0) -> list[Any]:
    """Return `count` consecutive chunks of noise; if `count` is not whole, the last chunk is short."""
    samples = round(count * tagger.chunk_samples)
    noise = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    stream = tagger.chunks()
    return [*stream.push(noise), *stream.finish()]


def batch_bytes(tagger: Tagger, batch_chunks: int) -> int:
    """Measure the peak memory of a batch of `batch_chunks` chunks, from long and from short recordings."""
    tagger.batch_chunks = batch_chunks
    chunks = noise_chunks(tagger, batch_chunks)
    if tagger.config.streaming:
        long = noise_chunks(tagger, batch_chunks + batch_chunks // 2)  # the next recording begins within a batch
        pairs = [*noise_chunks(tagger, 2), *noise_chunks(tagger, 1.5)]
        chunks = [*long, *chunks, *pairs[:2] * batch_chunks, *pairs[2:] * batch_chunks]
    with TensorMemory() as memory:
        for _ in tagger.score(enumerate(chunks)):
            pass
    peak_bytes: int = memory.peak_bytes
    return peak_bytes


def largest_batch(tagger: Tagger, limit_bytes: int) -> int:
    """Find the largest batch within a memory limit by running batches, up to the tagger's `batch_chunks`.

    Raises:
        ConfigError: A single chunk needs more memory.
    """
    usual = tagger.batch_chunks
    one, two = (round(MARGIN * batch_bytes(tagger, chunks)) for chunks in (1, 2))
    if one > limit_bytes:
        raise ConfigError(
            f"one chunk of {tagger.config.name} needs {one / 1e6:,.1f} MB, more than the "
            f"{limit_bytes / 1e6:,.1f} MB of --max-batch-memory"
        )
    batch = min(usual, 1 + (limit_bytes - one) // max(1, two - one))
    while batch > 1 and MARGIN * batch_bytes(tagger, batch) > limit_bytes:
        batch -= 1
    return batch
