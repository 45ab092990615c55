"""The commands and Python blocks of the README, CONTRIBUTING and the documentation run, and do what the texts say."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from conftest import Satpipe
from helpers import model_by_rule
from satpipe.pipeline.tables import schemas
from satpipe.sat.model.config import get_config
from satpipe.sat.weights import hub
from satpipe.sat.weights.published import to_published
from text_blocks import PYTHON
from text_commands import COMMANDS, ELSEWHERE, RECORDINGS, TAG_LIKE, UNAVAILABLE
from texts import README, ROOT, TEXTS, blocks, commands


class Shop:
    """A folder with everything the texts presuppose, in which each command runs once.

    It is a copy of the files that git knows or would add, with an environment that make treats as installed. That
    environment is the one of these tests, since installing another one takes minutes. It has the original checkout
    installed in editable mode, so the commands run its code, which is the same.
    """

    def __init__(self, folder: Path, recordings: Path, mirror: dict[str, str], satpipe_here: Satpipe) -> None:
        self.folder, self.recordings, self.satpipe_here = folder, recordings, satpipe_here
        self.mirror = mirror | {"SATPIPE_AUDIOSET": str(folder)}
        self.done: dict[str, tuple[Path, str]] = {}

    def run(self, line: str) -> tuple[Path, str]:
        """Run a command after those it needs, unless it has run; return where it ran and what it printed."""
        if line not in self.done:
            command = COMMANDS[line]
            for other in command.after:
                self.run(other)
            folder = self.apart() if command.apart else self.folder
            self.done[line] = folder, self.execute(line, folder)
        return self.done[line]

    def execute(self, line: str, folder: Path) -> str:
        """Run a line, in this process if it is a plain satpipe command; return what it printed."""
        words = shlex.split(line)
        if words[0] == "satpipe" and not {"|", "||"} & set(words):
            arguments = [str(self.recordings) if word == "/recordings" else word for word in words[1:]]
            done = self.satpipe_here(*arguments, cwd=folder, env=self.mirror)
        else:
            done = self.shell(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def shell(self, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a line as a shell does, in the environment that `make tag` installs."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        line = re.sub(r"(?<=\s)/recordings\b", shlex.quote(str(self.recordings)), line)
        return subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            timeout=560,
            cwd=folder,
            env={**ours, **self.mirror, "PATH": path},
            check=False,
        )

    def apart(self) -> Path:
        """Return a folder with a copy of `out`."""
        folder = self.folder / "apart" / str(len(self.done))
        shutil.copytree(self.folder / "out", folder / "out")
        return folder


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where published checkpoints come from, on loopback, and an empty cache: environment variables."""
    served, cache = tmp_path_factory.mktemp("mirror"), tmp_path_factory.mktemp("cache")
    config = get_config("SAT_T_2s")
    published = to_published(model_by_rule(config).state_dict(), config)
    torch.save({"model": published}, served / hub.PUBLISHED[config.name].file)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{listener.server_port}"
        yield {"SATPIPE_HUB_URL": url, "SATPIPE_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}
        listener.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, mirror: dict[str, str], satpipe_here: Satpipe) -> Shop:
    folder, recordings = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("recordings")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():  # not removed since it was added
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    environment = folder / ".venv"
    environment.mkdir()
    stamps = (".installed", ".developing", ".training")
    for path in Path(sys.prefix).iterdir():
        if path.name not in stamps:
            (environment / path.name).symlink_to(path)
    for stamp in stamps:
        (environment / stamp).touch()
    for name in RECORDINGS:
        noise = np.random.default_rng(len(name)).uniform(-0.1, 0.1, 100_000)
        (recordings / "pond").mkdir(exist_ok=True)
        soundfile.write(recordings / name, noise, 16_000)
    write_tables_of_the_texts(folder)
    return Shop(folder, recordings, mirror, satpipe_here)


def write_tables_of_the_texts(folder: Path) -> None:
    """Write ground truth under the names that the texts have for it, and the tables that they show."""
    strong = [
        ("0", 0.5, 3, "/m/09x0r"),
        ("AACQBaSIzog_30000", 1, 2, "/m/04rlf"),
        ("-9DpfakhxAU_30000", 0, 10, "/m/0jbk"),
    ]
    lines = "".join(f"{clip}\t{onset_s}\t{offset_s}\t{mid}\n" for clip, onset_s, offset_s, mid in strong)
    for name in ("audioset_eval_strong.tsv", "strong.tsv"):
        (folder / name).write_text("segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n" + lines)
    (folder / "validation.txt").write_text("0\n")
    for page, names in {"wall-clock": ("marks.csv", "times.csv"), "events": ("groups.csv", "thresholds.csv")}.items():
        tables = blocks(TEXTS[f"reports/docs/howto/{page}.md"], "text")
        for name, table in zip(names, tables, strict=True):
            (folder / name).write_text(table)


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_texts_does_what_it_is_there_for(line: str, shop: Shop) -> None:
    COMMANDS[line].check(*shop.run(line))


def test_every_command_of_the_texts_is_run_by_a_test() -> None:
    written = {line.removeprefix(".venv/bin/") for text in TEXTS.values() for line in commands(text)}
    known = {*COMMANDS, *ELSEWHERE}
    assert [line for line in written - known if not UNAVAILABLE.fullmatch(line)] == []
    assert known - written == set(), "no text has these any more"


@pytest.mark.slow
def test_make_test_calls_pytest_and_nothing_leaves_a_test_out(shop: Shop) -> None:
    # Not these tests from within themselves.
    assert shop.execute("make -n test", shop.folder) == ".venv/bin/pytest\n"
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert not {"-m", "-k", "--ignore", "--deselect"} & set(options["addopts"].replace("=", " ").split())
    assert options["filterwarnings"][0] == "error"


@pytest.mark.slow
def test_make_check_calls_every_tool(shop: Shop) -> None:
    tools = ("ruff format --check .", "ruff check .", "mypy", "lint-imports")
    assert shop.execute("make -n check", shop.folder).splitlines() == [f".venv/bin/{tool}" for tool in tools]


@pytest.mark.slow
def test_the_quick_tests_are_chosen_by_the_marker(shop: Shop) -> None:
    line = '.venv/bin/pytest -m "not slow"'
    printed = shop.execute(f"{line} --collect-only -q tests/reports/test_docs.py", shop.folder)
    assert re.search(r"\d+/\d+ tests collected \(\d+ deselected\)", printed)


def test_ci_installs_the_browser_and_runs_what_a_reader_runs() -> None:
    steps = [step.strip() for step in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert steps.index("apt-get update") < steps.index("apt-get install chromium chromium-driver <<<y")
    assert steps[-2:] == ["make check", "make test"]
    assert "export CI=true" in steps  # there, the tests fail without a browser


@pytest.mark.slow
def test_every_make_target_that_is_named_is_there(shop: Shop) -> None:
    named = {
        name for text in TEXTS.values() for name in re.findall(r"\bmake ([a-z-]+)(?=`|\s+#|$)", text, re.MULTILINE)
    }
    assert named == {"tag", "test", "check", "docs", "bench", "bench-gpu", "train-smoke"}
    for target in (*named, "clean"):
        shop.execute(f"make -n {target}", shop.folder)
    # The first of the two has a test of its own, test_benchmark.py.
    bench = shop.execute("make -n bench", shop.folder).splitlines()
    assert bench[0] == ".venv/bin/satpipe benchmark tag examples/recordings -o reports/benchmark.json"
    assert bench[1:] == [".venv/bin/python -m satpipe.reports.readme"]
    shop.execute(bench[1], shop.folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray Train's use of Ray Data
def test_the_smoke_run_of_training_goes_through_all_stages(shop: Shop) -> None:
    lines = shop.execute("make -n train-smoke", shop.folder).replace("\\\n", " ").splitlines()
    for line in lines:
        shop.execute(line.removeprefix(".venv/bin/"), shop.folder)
    made = shop.folder / "build" / "train-smoke" / "reproduced"
    table = pd.read_csv(made / "table2.csv", index_col=["delay", "model"], dtype=str)["mAP, ours"]
    (run,) = made.glob("sat_tiny_2s-??????????")
    validated = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]["map"]
    assert table["2 s", "SAT-T"] == f"{100 * validated:.1f}"
    assert not table["2 s", "ViT-T"].endswith("†")
    assert table["2 s", "BEATs"].endswith("†")
    assert table["1 s", "SAT-T"].endswith("†")
    strong = pd.read_csv(made / "table3.csv", index_col=["delay", "model"], dtype=str)
    assert strong["segment-F1, ours"]["2 s", "SAT-T"].count("/") == 2
    markers = {path: path.stat().st_mtime_ns for path in made.glob("*-??????????.json")}
    assert len(markers) == 2 + 3 + 1 + 3 * 2  # sets, models, labels, and of each row tables and two evaluations
    shop.execute(lines[-1].removeprefix(".venv/bin/"), shop.folder)
    assert {path: path.stat().st_mtime_ns for path in made.glob("*-??????????.json")} == markers


BLOCKS = [
    pytest.param(name, block, id=f"{name}: {number}")
    for name, text in TEXTS.items()
    for number, block in enumerate(blocks(text, "python"))
    if "s3://" not in block
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* their start is not known")  # most of the examples have no time
@pytest.mark.parametrize(("name", "block"), BLOCKS)
def test_every_python_block_runs(
    name: str,
    block: str,
    shop: Shop,
    ray_here: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check, lines = next(found for part, found in PYTHON.items() if part in block)
    for line in lines:
        shop.run(line)
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("SATPIPE_AUDIOSET", str(shop.folder))
    names: dict[str, Any] = {}
    capsys.readouterr()
    exec(compile(block, name, "exec"), names)
    check(names, capsys.readouterr().out, block)


@pytest.mark.slow
def test_duckdb_and_polars_read_the_tables(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run("make tag")
    monkeypatch.chdir(shop.folder)
    statement = re.search(r"`(SELECT [^`]*)`", README)
    assert statement
    counts = pd.read_parquet("out/tags").label.astype(str).value_counts().to_dict()
    assert dict(duckdb.sql(statement[1]).fetchall()) == counts
    assert dict(pl.read_parquet("out/tags/*.parquet")["label"].cast(pl.String).value_counts().iter_rows()) == counts


@pytest.mark.slow
def test_the_files_of_the_tables_have_the_columns_of_their_schemas(shop: Shop) -> None:
    shop.run(TAG_LIKE)
    for folder, schema in schemas.SCHEMAS.items():
        for path in (shop.folder / "out_like" / folder).iterdir():
            assert sorted(pq.read_schema(path).names) == sorted(schema.names)
