"""Fixtures for tests of the commands: the installed command, and Ray clusters that several tests share."""

import io
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

pytest.register_assert_rewrite("text_commands", "text_blocks")  # their checks show what differs
# Test files run in parallel; torch's threads would waste time spinning while others use their processor.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
MINUTES = ["test_survival.py", "test_tag.py", "test_train.py", "test_commands.py", "test_benchmark.py"]
COMMAND = Path(sys.executable).parent / "satpipe"
Satpipe = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests marked `soak`."""
    parser.addoption("--minutes", type=int, default=120, help="how long tests marked soak take")
    parser.addoption("--seed", type=int, default=1, help="seed of tests marked soak")


@pytest.fixture
def minutes(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--minutes"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that take hours, unless asked for; run files that take minutes first, so that none ends alone."""
    if "soak" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("soak")])
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
    items.sort(key=lambda item: MINUTES.index(item.path.name) if item.path.name in MINUTES else len(MINUTES))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the skipped tests and what would make them run: each skip reason states that."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("skipped tests, and what would make them run")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:4d}  {reason}")


@pytest.fixture(autouse=True, scope="session")
def _no_usage_report() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="session")
def satpipe() -> Satpipe:
    """Run the installed command; it must never print a traceback."""

    def run(*args: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(COMMAND), *map(str, args)],
            capture_output=True,
            text=True,
            timeout=480,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Make torch use one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Start Ray with two processors in this process; all runs in this process use it."""
    import ray

    os.environ.setdefault("RAY_preload_python_modules", "torch")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def satpipe_here(ray_here: None) -> Satpipe:
    """Run a command in this process, on the Ray of `ray_here`; this is seconds faster than `satpipe`."""
    from satpipe.jobs.commands.main import run as run_command

    def run(*args: object, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        argv = [str(COMMAND), *map(str, args)]
        stdout, stderr = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", argv)
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            code = run_command()
        return subprocess.CompletedProcess(argv, code, stdout.getvalue(), stderr.getvalue())

    return run


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Start a Ray cluster of one node with two processors, which all tests share."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()
