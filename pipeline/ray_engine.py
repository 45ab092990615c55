"""Run functions on Ray; this module does not know what they do."""

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, WorkerCrashedError
from satpipe.pipeline import local_ray
from satpipe.sat.errors import ConfigError, SatpipeError

log = logging.getLogger("satpipe")

RETRIES = 2  # of a task whose worker is lost
REACH_TIMEOUT_S = 10.0
MAX_WORKERS_PER_GPU = 8  # each needs half a gigabyte of the GPU in addition to model and batch


@dataclass(frozen=True)
class Lost:
    """Replaces the result of a task that, at every try, ended its worker or failed with an unexpected error."""

    reason: str
    """Ray's explanation."""


class Engine:
    """Runs functions as Ray tasks and returns their results in the order in which they finish.

    Tasks, not actors: Ray starts them wherever a processor is free, also on nodes that join later, and restarts them
    when a worker or a node is lost. A worker process runs many tasks, so a model that a function caches in its module
    is loaded once per worker.

    Attributes:
        on_retry: Called with items that `submit_items` submits again because their worker was lost, and the reason.
    """

    def __init__(self, gpus: float, workers: int | None) -> None:
        """Use the Ray that this process has started or joined.

        Args:
            gpus: Share of a GPU that each Ray task takes, in addition to a processor.
            workers: Maximum number of simultaneous Ray tasks; None: one per processor.
        """
        self.gpus = gpus
        self._workers = workers
        self._pending: dict[Any, tuple[Any, Callable[[], None] | None]] = {}
        self.on_retry: Callable[[list[Any], str], None] = lambda items, reason: None

    @property
    def width(self) -> int:
        """Number of Ray tasks that can run simultaneously now; grows and shrinks with the cluster."""
        return min(self._fitting, self._workers or self._fitting)

    @property
    def window(self) -> int:
        """Number of Ray tasks to submit: those that run, and as many that follow, unless these would run as well."""
        return self.width if self.width < self._fitting else 2 * self.width

    @property
    def _fitting(self) -> int:
        resources = ray.cluster_resources()
        fits = [resources.get("CPU", 0), *([resources.get("GPU", 0) // self.gpus] if self.gpus else [])]
        return max(1, int(min(fits)))

    @property
    def in_flight(self) -> int:
        """Number of submitted Ray tasks whose results `results` has not yielded yet."""
        return len(self._pending)

    def submit(self, ticket: Any, function: Callable[..., Any], *args: Any, retries: int = 0) -> None:
        """Run `function(*args)` on a worker.

        Args:
            ticket: Returned with the result.
            function: Importable by name on every node.
            args: Its arguments; large ones as returned by `share`.
            retries: Number of further tries if the worker is lost.
        """
        self._pending[self._start(function, args, retries)] = (ticket, None)

    def submit_items(self, ticket: Any, function: Callable[..., Any], items: list[Any], *args: Any) -> None:
        """Run `function(items, *args)` on a worker; if the worker is lost, run the function on each item alone.

        This finds the item that ends its worker. The returned ticket is `(ticket, items)` with the items of the result.
        """

        def alone() -> None:
            for item in items:
                self.submit_items(ticket, function, [item], *args)

        several = len(items) > 1
        reference = self._start(function, (items, *args), 0 if several else RETRIES)
        self._pending[reference] = ((ticket, items), alone if several else None)

    def _start(self, function: Callable[..., Any], args: tuple[Any, ...], retries: int) -> Any:
        options = {"num_cpus": 1, "num_gpus": self.gpus, "max_retries": retries}
        return _call.options(**options, scheduling_strategy="SPREAD").remote(function, *args)

    def results(self, timeout_s: float) -> Iterator[tuple[Any, Any]]:
        """Wait for results up to `timeout_s`; yield (ticket, result) for each; the result of a lost task is a `Lost`.

        Raises:
            SatpipeError: A function raised it.
        """
        if not self._pending:
            return
        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if ready:  # and all others that are ready by now
            ready, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        for reference in ready:
            ticket, alone = self._pending.pop(reference)
            result = _result(reference)
            if isinstance(result, Lost) and alone:
                log.warning("lost several items, trying each again alone: %s", result.reason)
                self.on_retry(ticket[1], result.reason)
                alone()
            else:
                yield ticket, result

    def cancel(self) -> None:
        """End the tasks that have no result yet, whatever they are doing."""
        for reference in self._pending:
            ray.cancel(reference, force=True)
        self._pending.clear()

    def share(self, value: Any) -> list[Any]:
        """Store a large value once for all workers; they pass the returned reference to `fetch`."""
        return [ray.put(value)]


def fetch(shared: list[Any]) -> Any:
    """Return the value that `Engine.share` has stored."""
    return ray.get(shared[0])


@contextmanager
def start(address: str | None, workers: int | None, device: str) -> Iterator[Engine]:
    """Start Ray on this machine or join a cluster, which is left at the end.

    A Ray that is started here runs until the process ends, for its next runs; it is started again for another number
    of workers. If the user has started or joined a Ray in this process, that one is used and left running. Tasks that
    have not finished at the end, as after an error, are cancelled.

    Args:
        address: Address of a running cluster; None: start Ray here.
        workers: Maximum number of simultaneous Ray tasks; None: one per processor.
        device: `cpu`, `cuda`, or `auto` for GPUs if the cluster has any.

    Raises:
        ConfigError: No cluster answers at the address, this process uses another one, Ray does not start, or it has no
            GPU.
    """
    with _joined(address) if address else _started(workers):
        resources = ray.cluster_resources()
        gpus = resources.get("GPU", 0)
        if device == "cuda" and not gpus:
            raise ConfigError("Ray found no GPU; use --device cpu")
        on_gpu = gpus and device != "cpu"
        engine = Engine(1 / sharing(resources.get("CPU", 0), gpus) if on_gpu else 0, workers)
        try:
            yield engine
        finally:
            engine.cancel()


def prepare(address: str | None, workers: int | None) -> None:
    """Let Ray start in the background if `start` with these arguments will need it to; return at once."""
    if not address and not local_ray.others():
        local_ray.ours(workers)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Join a cluster, unless this process already uses it; leave it at the end."""
    if local_ray.others():
        used = ray.get_runtime_context().gcs_address
        if not _same(address, used):
            raise ConfigError(
                f"this process already uses the Ray at {used}, not the one at {address}: omit the address, or call "
                "ray.shutdown() first"
            )
        yield
        return
    local_ray.end()
    _reach(address)
    with _described(f"no Ray cluster answers at {address}"), ThreadPoolExecutor(1) as thread:
        thread.submit(local_ray.initialize, address=address).result()
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started(workers: int | None) -> Iterator[None]:
    """Use the Ray that the user has started or joined in this process, or else its own, which runs on."""
    if not local_ray.others():
        advice = (
            ". The machine may be busy or short of memory: stop other programs, or use fewer --workers, and run the "
            "command again"
        )
        with _described("Ray could not be started", advice):
            local_ray.ours(workers).wait()
    yield


@contextmanager
def _described(problem: str, advice: str = "") -> Iterator[None]:
    """Make an error of Ray's a ConfigError: `PROBLEM: REASON ADVICE`."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # if the start-up times out, Ray raises no more specific class
        raise ConfigError(f"{problem}: {str(error).strip().rstrip('.')}{advice}") from error


def _same(address: str, used: str) -> bool:
    """Return True if an address can be that of the Ray in use at HOST:PORT; a client's (ray://) cannot be compared."""
    if address == "auto" or "://" in address:
        return True
    (host, _, port), (used_host, _, used_port) = address.rpartition(":"), used.rpartition(":")
    try:
        ip = socket.gethostbyname(host)
    except OSError:
        return False
    return port == used_port and used_host in (ip, ray.util.get_node_ip_address() if ip.startswith("127.") else ip)


def sharing(cpus: float, gpus: float) -> int:
    """Return the number of workers per GPU; each has a processor: while one decodes, others use the GPU.

    The number is a power of two, since Ray counts in ten-thousandths of a GPU.
    """
    workers = max(1, min(int(cpus // gpus), MAX_WORKERS_PER_GPU))
    return 1 << (workers.bit_length() - 1)


def _reach(address: str) -> None:
    """Raise ConfigError in seconds if nothing answers at HOST:PORT; Ray itself would take minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


@ray.remote(max_calls=0)
def _call(function: Callable[..., Any], *args: Any) -> Any:
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
