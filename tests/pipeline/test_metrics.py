"""Metrics of a run on a cluster: as Ray exports them to Prometheus, and as the Grafana dashboard shows them."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from conftest import ROOT, Satpipe
from satpipe.pipeline.tagging.metrics import ALL, exported
from tag_tables import make_recordings

NAME = re.compile(r"\bray_\w+")


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((ROOT / "examples" / "cluster" / "grafana.json").read_text())
    (_, out) = variables = dashboard["templating"]["list"]
    assert [each["name"] for each in variables] == ["datasource", "out"]
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for query in (*queries, out["query"]["query"]) for name in NAME.findall(query)}
    assert used == set(map(exported, ALL))
    assert all(query.count(mark) == query.count(other) for query in queries for mark, other in ("()", "{}", "[]"))
    assert all("$out" in query for query in queries)
    sources = [each["datasource"] for panel in dashboard["panels"] for each in (panel, *panel["targets"])]
    assert {each["uid"] for each in (*sources, out["datasource"])} == {"${datasource}"}
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    covered = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(covered) == len(set(covered))
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], str, str]]:
    """A cluster that `ray start` has started on loopback: its environment, its address, and the URL of its metrics."""
    port, metrics = free_port(), free_port()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_metrics_report_interval_ms": "1000",
    }
    command = [Path(sys.executable).parent / "ray", "start", "--head", "--block", "--disable-usage-stats"]
    options = {"port": port, "metrics-export-port": metrics, "node-ip-address": "127.0.0.1", "num-cpus": 1}
    options |= {"include-dashboard": "false", "dashboard-agent-listen-port": free_port()}
    options |= {"ray-client-server-port": free_port(), "temp-dir": f"/tmp/r{secrets.token_hex(3)}"}
    arguments = [str(word) for word in (*command, *(f"--{name}={value}" for name, value in options.items()))]
    with (tmp_path_factory.mktemp("ray") / "printed").open("w+") as printed:
        process = psutil.Popen(arguments, env={**os.environ, **environment}, stdout=printed, stderr=printed)
        try:
            deadline = time.monotonic() + 120
            while not (listens(port) and listens(metrics)):
                assert process.poll() is None, (printed.seek(0), printed.read())[1]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield environment, f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics"
        finally:
            started = process.children(recursive=True)
            for each in (process, *started):
                each.kill()
            process.wait(20)
            psutil.wait_procs(started, 20)
            subprocess.run(["rm", "-rf", str(options["temp-dir"])], check=True)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def samples(url: str) -> dict[tuple[str, str], tuple[float, str]]:
    """Return the value and the output folder of each metric of satpipe's, by name and reason."""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    with urlopen(url, timeout=10) as answer:
        lines: list[Any] = [line.decode() for line in answer if line.startswith(b"ray_satpipe")]
    for line in lines:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        found[line.partition("{")[0], labels.get("reason", "")] = float(line.split()[-1]), labels["out"]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("opentelemetry"), reason="pip install 'satpipe[cluster]', for Ray's agent")
def test_a_cluster_exports_the_metrics_of_a_run(
    cluster: tuple[dict[str, str], str, str], satpipe: Satpipe, tmp_path: Path
) -> None:
    environment, address, url = cluster
    folder, out = make_recordings(tmp_path / "in", 2, 9), tmp_path / "out"
    (folder / "bad.wav").write_text("no sound")
    seen: dict[tuple[str, str], tuple[float, str]] = {}
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(0.3):
            seen.update(samples(url))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    done = satpipe("tag", folder, "-o", out, "--address", address, env=environment)
    time.sleep(1.5)
    over.set()
    scraper.join()
    assert done.returncode == 3, done.stderr
    assert {name for name, _ in seen} == set(map(exported, ALL))
    assert {folder for _, folder in seen.values()} == {str(out)}
    assert seen["ray_satpipe_hours_done_total", ""][0] == pytest.approx(18 / 3600)
    assert seen["ray_satpipe_recordings_total", ""][0] == 3
    assert {reason: value for (name, reason), (value, _) in seen.items() if "failures" in name} == {"unreadable": 1}
    assert seen["ray_satpipe_hours_per_second", ""][0] > 0
