"""What is measured of `satpipe stream` and of long runs: a short version of each, and what the README makes of it."""

from typing import Any

import pytest
from conftest import ROOT
from satpipe.jobs.benchmark import soak
from satpipe.jobs.benchmark import stream as benchmark_stream
from satpipe.reports import readme

SECONDS = 2.5
MINUTES = 1.0


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """The figures of the README."""
    return readme.measured()


@pytest.mark.slow
def test_the_delay_is_measured_of_one_stream_and_of_several(figures: dict[str, Any]) -> None:
    cases = (benchmark_stream.Case("SAT_T_1s", 48_000, 2), benchmark_stream.Case("SAT_T_1s", streams=2))
    measured = benchmark_stream.benchmark(lambda line: None, SECONDS, cases)
    assert measured.keys() == figures["stream"].keys()
    one, two = measured["runs"]
    assert one.keys() == figures["stream"]["runs"][0].keys()
    assert (one["chunks"], two["chunks"]) == (2, 4)
    for run in measured["runs"]:  # the half window, and whatever the machine needs
        assert 0.016 < run["median_s"] <= run["max_s"] < 10
    assert "| SAT_T_1s | 1 | 48 kHz stereo |" in readme.live(figures | {"stream": measured})


@pytest.mark.slow
def test_a_short_soak_takes_what_a_long_one_takes(figures: dict[str, Any]) -> None:
    measured = soak.benchmark(ROOT / "examples" / "recordings", MINUTES / 60, lambda line: None)
    assert measured.keys() == figures["soak"].keys()
    for command in ("tag", "stream"):
        run = measured[command]
        assert run.keys() == figures["soak"][command].keys()
        assert len(run["memory_mb"]) == len(run["handles"]) == 10
        assert 100 < max(run["memory_mb"]) < 8_000
        assert 3 <= max(run["handles"]) < 5_000  # input, output and errors at least
    # Most of so short a run is its start, where memory still grows: of the long run it must not (below).
    assert [problem for problem in soak.problems(measured) if problem.startswith("stream: handles")] == []


def test_the_soak_of_the_readme_was_long_and_flat(figures: dict[str, Any]) -> None:
    assert figures["soak"]["tag"]["hours"] >= 24
    assert figures["soak"]["stream"]["hours"] >= 1
    assert soak.problems(figures["soak"]) == []


def test_what_grows_is_noticed() -> None:
    flat = {"memory_mb": [100.0, 700, *[900.0] * 7, 400], "handles": [10.0, *[80.0] * 8, 20]}
    leaks = flat | {"memory_mb": [100.0, 700, 800, 900, 1000, 1100, 1200, 1300, 1400, 400]}
    handles = flat | {"handles": [float(20 * part) for part in range(10)]}
    assert soak.problems({"tag": flat, "stream": flat}) == []
    assert [found.partition(" grew")[0] for found in soak.problems({"tag": leaks, "stream": handles})] == [
        "tag: memory_mb",
        "stream: handles",
    ]
