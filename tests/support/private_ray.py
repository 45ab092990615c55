"""A Ray that this process starts, as seen from outside: what it listens on, and where its files are."""

import json
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def describe(to: Path) -> int:
    """Start Ray, run a task, and write to `to` what can be seen of it; return the exit status."""
    from satpipe.pipeline import local_ray

    before = dict(os.environ)
    results = _run("sum", operator.add, 1, 2)
    this = psutil.Process()
    processes = this.children(recursive=True)
    listening = {
        socket.laddr.ip
        for process in [this, *processes]
        for socket in process.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    (raylet,) = (process for process in processes if process.name() == "raylet")
    (folder,) = (Path(word.partition("=")[2]) for word in raylet.cmdline() if word.startswith("--temp_dir="))
    seen = {
        "results": results,
        "listening": sorted(listening),
        "folder": str(folder.parent),
        "mode": oct(folder.parent.stat().st_mode & 0o777),
        "monitors": [process.pid for process in processes if any("monitor.py" in word for word in process.cmdline())],
        "token": raylet.environ()["RAY_AUTH_MODE"],
    }
    local_ray.end()
    added = set(os.environ) - set(before)
    folder_left = folder.parent.exists()
    _, left = psutil.wait_procs(processes, timeout=20)  # a killed process ends when the system gets round to it
    seen |= {"folder_left": folder_left, "left": [each.pid for each in left], "added": sorted(added)}
    to.write_text(json.dumps(seen))
    return 0


def use_again_and_again(to: Path) -> int:
    """Run tasks on the Ray of this process, and on one of the user's after it; return the exit status."""
    import ray
    from satpipe.pipeline import local_ray

    os.nice(5)
    niceness = [_run("nice", os.nice, 0)[0][1], os.nice(0)]
    addresses = [ray.get_runtime_context().gcs_address]
    _run("sum", operator.add, 1, 2)
    addresses.append(ray.get_runtime_context().gcs_address)
    ray.shutdown()  # as a user may, to start another
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    users = ray.get_runtime_context().gcs_address
    _run("sum", operator.add, 1, 2)
    local_ray.end()
    kept = ray.is_initialized() and ray.get_runtime_context().gcs_address == users
    to.write_text(json.dumps({"niceness": niceness, "addresses": addresses, "kept": kept}))
    return 0


def _run(ticket: str, function: Callable[..., Any], *args: Any) -> list[tuple[Any, Any]]:
    from satpipe.pipeline import ray_engine

    with ray_engine.start(None, 1, "cpu") as engine:
        engine.submit(ticket, function, *args)
        return list(engine.results(60))
