"""A Ray on this machine for this process: closed to others, with its files where this user may write."""

import atexit
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil
import ray
from ray._private import parameter as ray_parameter
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from satpipe.sat.errors import ConfigError

SOCKET_BYTES = len("/ray-abcdefgh/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
MAX_PARENT_BYTES = (103 if sys.platform == "darwin" else 107) - SOCKET_BYTES  # a system limits the paths of sockets
REMOVAL_TRIES = 50
REMOVAL_EVERY_S = 0.1
MIN_FREE_BYTES = 32 * 2**20  # for sockets and logs
OBJECT_STORE_BYTES = 512 * 2**20  # for the model's weights; everything else is small
OUT_OF_MEMORY_RETRIES = 2
# Ray starts no dashboard where it cannot; otherwise it would wait a second for one that shows nothing.
NO_DASHBOARD = {"include_dashboard": False, "dashboard_host": None, "dashboard_port": -1}
CHECK_EVERY_S = 0.2  # for the end of Ray; faster than the user can end it and start another
END_WITHIN_S = 3.0  # time for this process to leave its Ray

_ours: "LocalRay | None" = None


def ours(cpus: int | None) -> "LocalRay":
    """Return the Ray of this process; if there is none with so many processors, start it in the background.

    Args:
        cpus: Number of tasks that Ray runs simultaneously; None: one per processor.
    """
    global _ours
    if not (_ours and _ours.usable and _ours.cpus == cpus):
        end()
        _ours = LocalRay(cpus)
    return _ours


def others() -> bool:
    """Return True if this process uses a Ray that it has not started here, but the user elsewhere."""
    return ray.is_initialized() and not (_ours and _ours.usable)


@atexit.register
def end() -> None:
    """End the Ray of this process, if it has started one."""
    global _ours
    if _ours and _ours.process == os.getpid():
        _ours.end()
    _ours = None


class LocalRay:
    """The Ray that this process has started; all its runs use it, and it ends with the process.

    It lives in a thread of its own: the caller can go on while it starts, which is mostly waiting; and Linux kills
    Ray's processes when the thread that started them ends, which must not be one of the user's.
    """

    def __init__(self, cpus: int | None) -> None:
        """Start Ray in the background; `cpus` is that of `ours`."""
        self.cpus = cpus
        self.process = os.getpid()
        self._folder = self._address = ""
        self._error: Exception | None = None
        self._started, self._to_end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="satpipe-ray", daemon=True)
        self._thread.start()

    @property
    def usable(self) -> bool:
        """True while this process uses this Ray, or will when it has started."""
        return self.process == os.getpid() and (not self._started.is_set() or self._in_use)

    def wait(self) -> None:
        """Wait until Ray has started.

        Raises:
            ConfigError: There is no folder for its sockets and logs.
            Exception: It could not be started.
        """
        self._started.wait()
        if self._error:
            raise self._error

    def end(self) -> None:
        """End Ray and its processes, at once: Ray itself would end one after the other, which takes a second."""
        complete = self._started.is_set()
        self._to_end.set()
        deadline = time.monotonic() + END_WITHIN_S
        while complete and self._in_use and time.monotonic() < deadline:  # this process must leave first
            time.sleep(0.002)
        if self._folder:
            _kill(self._folder)
        if complete:
            self._thread.join(END_WITHIN_S + REMOVAL_TRIES * REMOVAL_EVERY_S)
        elif self._folder:  # Ray waits for processes that are gone, and would at the end of the program
            atexit.unregister(ray.shutdown)
            _remove(self._folder)

    @property
    def _in_use(self) -> bool:
        return ray.is_initialized() and ray.get_runtime_context().gcs_address == self._address

    def _start(self) -> None:
        initialize(
            address="local",  # not a Ray that happens to run here, nor that of RAY_ADDRESS
            num_cpus=self.cpus,
            **NO_DASHBOARD,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=os.path.join(self._folder, "r"),  # Ray opens its own folder to all users
        )

    def _live(self) -> None:
        try:
            with folder() as self._folder, _loopback(), _minimal():
                with private():
                    try:
                        self._start()
                    except Exception:  # no more specific class: a busy machine needs more than Ray's 30 s
                        if self._to_end.is_set():
                            raise
                        _kill(self._folder)
                        self._start()
                self._address = ray.get_runtime_context().gcs_address
                self._started.set()
                while self._in_use and not self._to_end.wait(CHECK_EVERY_S):
                    pass
                if self._in_use:  # otherwise the user has called `ray.shutdown`
                    ray.shutdown()
                _read_environment_again()
        except Exception as error:  # noqa: BLE001  (if the start-up times out, Ray raises no more specific class)
            self._error = error
        finally:
            self._started.set()


def initialize(**options: Any) -> None:
    """Start or join Ray, outside the main thread, so that SIGTERM goes on to do what it does in this program.

    In the main thread Ray would install a handler that raises SystemExit, and anywhere one in C++ that prints a stack
    trace and aborts the program if that has not ended three seconds later. Nor does Ray print a paragraph for each
    worker that is lost: whoever waits for its task is told.
    """
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    printing, ray_worker.listen_error_messages = ray_worker.listen_error_messages, lambda *_: None
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    finally:
        ray_worker.listen_error_messages = printing


@contextmanager
def private() -> Iterator[None]:
    """Let `ray.init` start a Ray for this user only.

    Its processes listen on the loopback interface. They answer callers that know a token made for this Ray, unless the
    environment variables RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH say otherwise. Nothing is reported to
    Ray's makers. Workers have the niceness of this process, and import torch when they start.
    """
    variables = {
        "RAY_AUTH_MODE": "token",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # added to that of this process; by default 15
        "RAY_preload_python_modules": "torch",
        # By default Ray retries a task that runs out of memory for ever; one large recording would block the run.
        "RAY_task_oom_retries": str(OUT_OF_MEMORY_RETRIES),
    }
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):  # Ray itself would write a token to the home, which may not exist
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with environment(variables):
        _read_environment_again()
        yield


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that the user has not set, within the block."""
    added = [name for name in variables if not os.environ.get(name)]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _read_environment_again() -> None:
    """Let Ray forget the mode and the token that it has read."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _loopback() -> Iterator[None]:
    """Let this process use the loopback interface, as its variable makes Ray's own processes do.

    Ray reads the variable when it is imported, which may be long before, or for a cluster.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _minimal() -> Iterator[None]:
    """Let Ray start few processes, which would delay the first task by seconds.

    A single machine needs no autoscaler, and since no logs are printed, no log monitor. The agent starts as if
    `ray[default]` were not installed, without a dashboard or metrics.
    """
    before = ray_utils.get_dashboard_dependency_error, ray_parameter.RayParams
    ray_utils.get_dashboard_dependency_error = lambda: ImportError()
    fewer: Any = {"no_monitor": True, "include_log_monitor": False}  # which `ray.init` does not take
    ray_parameter.RayParams = partial(ray_parameter.RayParams, **fewer)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        ray_utils.get_dashboard_dependency_error, ray_parameter.RayParams = before  # type: ignore[misc]


@contextmanager
def folder() -> Iterator[str]:
    """Make a folder for sockets and logs where this user may write, there is space, and the path is short enough.

    It is closed to others and removed at the end, unless RAY_TMPDIR names the folder to keep it in.

    Raises:
        ConfigError: There is no such folder.
    """
    kept, temporary, of_user = (os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR", "XDG_RUNTIME_DIR"))
    problems = []
    for parent in filter(None, (kept, temporary, "/tmp", "/var/tmp", of_user, "/dev/shm")):
        try:
            made = _made_in(os.path.abspath(parent))
        except OSError as error:
            problems.append(f"{parent}: {error.strerror or error}")
            continue
        try:
            yield made
        finally:
            _remove(made)
        return
    raise ConfigError(
        f"Ray needs a folder for its sockets and logs, but none can be used ({'; '.join(problems)}). Free space, or "
        f"set RAY_TMPDIR to a folder where you may write, with {MIN_FREE_BYTES >> 20} MB of space and a path of at "
        f"most {MAX_PARENT_BYTES} bytes"
    )


def _made_in(parent: str) -> str:
    if len(os.fsencode(parent)) > MAX_PARENT_BYTES:
        raise OSError(f"its path is longer than {MAX_PARENT_BYTES} bytes")
    os.makedirs(parent, exist_ok=True)
    free_bytes = shutil.disk_usage(parent).free
    if free_bytes < MIN_FREE_BYTES:
        raise OSError(f"only {free_bytes >> 20} MB are free")
    return tempfile.mkdtemp(prefix="ray-", dir=parent)


def _remove(made: str) -> None:
    """Remove a folder, which Ray's processes may still write to while they end, unless it is to be kept."""
    if os.path.dirname(made) == os.path.abspath(os.environ.get("RAY_TMPDIR") or "/"):
        return
    for _ in range(REMOVAL_TRIES):
        shutil.rmtree(made, ignore_errors=True)
        if not os.path.exists(made):
            return
        time.sleep(REMOVAL_EVERY_S)


def _kill(made: str) -> None:
    """Kill the processes of the Ray that has this folder, and all that these have started."""
    killed: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(made in word for word in child.cmdline()):
                killed += [child, *child.children(recursive=True)]
    for process in killed:
        with suppress(psutil.Error):
            process.kill()
