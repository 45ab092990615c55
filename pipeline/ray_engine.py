"""The Ray layer: where work runs. What the work is, it does not know."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError, WorkerCrashedError
from satpipe.sat.errors import ConfigError, SatpipeError

Result = TypeVar("Result")
REACH_TIMEOUT_S = 10.0
OUT_OF_MEMORY_RETRIES = 2
MOST_ON_A_GPU = 8  # workers: each takes half a gigabyte of the GPU for itself, model and batch left out
LOCAL_OBJECT_STORE_BYTES = 512 * 2**20  # holds the model's weights, nothing else of size


@dataclass(frozen=True)
class Lost:
    """In place of a result: the work brought its worker down, or failed in a way nobody foresaw, at every try.

    Attributes:
        reason: What Ray says of it.
    """

    reason: str


@dataclass(frozen=True)
class Slots:
    """What one piece of work takes.

    Attributes:
        cpus: Processors.
        gpus: Graphics processors.
    """

    cpus: float = 1
    gpus: float = 0


class Engine:
    """Hands functions to Ray tasks and their results back as they come.

    Tasks, not actors: Ray starts them wherever a processor is free, on nodes that join later too, starts them
    again when a worker or a node is lost, and can end one that hangs. Worker processes live on from task to task, so
    what a function caches in its module, a model above all, is loaded once in each.
    """

    def __init__(self, slots: Slots, workers: int | None) -> None:
        self.slots = slots
        self._workers = workers
        self._pending: dict[Any, Any] = {}
        self._done: deque[tuple[Any, Any]] = deque()

    @property
    def width(self) -> int:
        """Pieces of work that can run at the same time at present; grows and shrinks with the cluster."""
        resources = ray.cluster_resources()
        fits = [
            int(resources.get(name, 0) // each)
            for name, each in (("CPU", self.slots.cpus), ("GPU", self.slots.gpus))
            if each
        ]
        width = max(1, min(fits))
        return min(width, self._workers) if self._workers else width

    @property
    def in_flight(self) -> int:
        """Pieces of work submitted whose results are not back."""
        return len(self._pending)

    def submit(self, ticket: Any, function: Callable[..., Any], *args: Any, retries: int = 0) -> None:
        """Have `function(*args)` run somewhere.

        Args:
            ticket: Comes back with the result.
            function: Importable by name on every node.
            args: Its arguments; large ones as references from `share`.
            retries: How often it is tried again when its worker is lost.
        """
        options = {"num_cpus": self.slots.cpus, "num_gpus": self.slots.gpus, "max_retries": retries}
        reference = _call.options(**options, scheduling_strategy="SPREAD").remote(function, *args)
        self._pending[reference] = ticket

    def results(self, timeout_s: float) -> Iterator[tuple[Any, Any]]:
        """Wait for results up to `timeout_s`; yield (ticket, result) of what has come, a `Lost` for what is lost.

        Raises:
            SatpipeError: That a function raised; it stops the run.
        """
        if not self._pending:
            return
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if ready:  # and whatever else is there by now
            ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        for reference in ready:
            yield self._pending.pop(reference), _result(reference)

    def share(self, value: Any) -> list[Any]:
        """Put a large value where every worker can get it; pass what this returns, and `fetch` it there."""
        return [ray.put(value)]


def fetch(shared: list[Any]) -> Any:
    """Return the value behind what `Engine.share` returned."""
    return ray.get(shared[0])


@contextmanager
def start(address: str | None, workers: int | None, device: str) -> Iterator[Engine]:
    """Start Ray on this machine, or join a cluster, and give it back at the end.

    A Ray that this process has started or joined already is used as it is, and left running.

    Args:
        address: Of a running cluster; None to start one here.
        workers: Most pieces of work at the same time; by default one for each processor.
        device: `cpu`, `cuda`, or `auto` for GPUs where there are any.

    Raises:
        ConfigError: No cluster answers at the address, or there is no GPU.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about anyone's recordings leaves the machine
    # Ray tries what was ended for lack of memory again for ever; one recording that takes too much would hold the run.
    os.environ.setdefault("RAY_task_oom_retries", str(OUT_OF_MEMORY_RETRIES))
    os.environ.setdefault("RAY_preload_python_modules", "torch")  # while Ray itself still starts
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        _reach(address)
        options |= {"address": address}
    else:
        options |= {
            "address": "local",  # not one that happens to run here, nor that of RAY_ADDRESS
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
        }
    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, GetTimeoutError) as error:
        raise ConfigError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from error
    try:
        resources = ray.cluster_resources()
        gpus = resources.get("GPU", 0)
        if device == "cuda" and not gpus:
            raise ConfigError("there is no GPU that Ray knows of; --device cpu will do")
        on_gpu = gpus and device != "cpu"
        yield Engine(Slots(gpus=1 / sharing(resources.get("CPU", 0), gpus)) if on_gpu else Slots(), workers)
    finally:
        if ours:
            ray.shutdown()


def sharing(cpus: float, gpus: float) -> int:
    """Workers that share a GPU, with a processor each: while one decodes, others have the GPU compute.

    A power of two, since Ray counts in whole ten-thousandths of a GPU.
    """
    workers = max(1, min(int(cpus // gpus), MOST_ON_A_GPU))
    return 1 << (workers.bit_length() - 1)


def _reach(address: str) -> None:
    """Find out at once what Ray takes minutes to tell: that nothing answers at a HOST:PORT."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


@ray.remote(max_calls=0)
def _call(function: Callable[..., Result], *args: Any) -> Result:
    return function(*args)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, SatpipeError):
            raise error.cause from None
        return Lost(f"{type(error.cause).__name__}: {error.cause}")
    except WorkerCrashedError:
        return Lost("its worker died")
    except RayError as error:
        return Lost(str(error).strip().splitlines()[0])
