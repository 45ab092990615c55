"""A Ray on this machine for one run: closed to others, with its files where this user may write."""

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from satpipe.sat.errors import ConfigError

SOCKET_BYTES = len("/ray-abcdefgh/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
MAX_PARENT_BYTES = (103 if sys.platform == "darwin" else 107) - SOCKET_BYTES  # a system limits the paths of sockets
REMOVAL_TRIES = 50
MIN_FREE_BYTES = 32 * 2**20  # for sockets and logs


@contextmanager
def private() -> Iterator[str]:
    """Let `ray.init` start a Ray for this user only; provide the folder for its `_temp_dir`.

    Its processes listen on the loopback interface. They answer callers that know a token made for this Ray, unless the
    environment variables RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH say otherwise. The folder with its
    sockets and logs is closed to others and removed at the end, unless RAY_TMPDIR names the folder to keep it in.

    Raises:
        ConfigError: There is no folder for sockets and logs.
    """
    variables = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):  # Ray itself would write a token to the home, which may not exist
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with _folder() as folder, _environment(variables), _loopback():
        yield folder


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, for this process and those it starts."""
    added = [name for name in variables if not os.environ.get(name)]
    os.environ.update({name: variables[name] for name in added})
    _read_environment_again()
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        _read_environment_again()


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
def _folder() -> Iterator[str]:
    """Make a folder for sockets and logs where this user may write, there is space, and the path is short enough."""
    kept, temporary, of_user = (os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR", "XDG_RUNTIME_DIR"))
    problems = []
    for parent in filter(None, (kept, temporary, "/tmp", "/var/tmp", of_user, "/dev/shm")):
        try:
            folder = _made_in(os.path.abspath(parent))
        except OSError as error:
            problems.append(f"{parent}: {error.strerror or error}")
            continue
        try:
            yield os.path.join(folder, "r")  # Ray opens its own folder to all users
        finally:
            if parent != kept:
                _remove(folder)
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


def _remove(folder: str) -> None:
    """Remove a folder to which Ray's processes may still write while they end."""
    for _ in range(REMOVAL_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)
