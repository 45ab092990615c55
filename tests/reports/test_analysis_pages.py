"""The code on the pages about DuckDB and R: it runs as it is, on the tables of the commands on the same page."""

import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from outputs import CHUNK_S, RUN, scores_of, set_clock, write_output
from satpipe.jobs.commands.main import cli
from texts import DOCS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tables of two recordings that begin at 05:59:58 in Berlin; a bird sings in both."""
    waves = {
        "site1/a.wav": scores_of(4, Bird=[0.9, 0.1, 0.1, 0.8], Owl=[0.4]),
        "site2/b.wav": scores_of(4, Bird=[0.2], Dog=[0.7, 0.7]),
    }
    write_output(tmp_path / "out", waves, run={**RUN, "clock": {"time_zone": "Europe/Berlin"}})
    set_clock(tmp_path / "out", {"site1/a.wav": (datetime(2025, 5, 1, 3, 59, 58, tzinfo=UTC), None)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SATPIPE_OUT", raising=False)
    return tmp_path


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """The code blocks of a page, with their language."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, code) for language, code in found if language in languages]


def run_commands(code: str) -> None:
    for line in code.splitlines():
        done = CliRunner().invoke(cli, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output


def test_duckdb_answers_the_queries(folder: Path) -> None:
    database = duckdb.connect()
    answers: list[list[tuple[Any, ...]]] = []
    for language, code in blocks("howto/duckdb.md", "sh", "sql"):
        if language == "sh":
            run_commands(code)
        else:
            answers.append(database.sql(code).fetchall() if "SET VARIABLE" not in code else _last(database, code))
    recordings, tags, chunks, month, hours, scores = answers
    assert recordings == [("ok", 2, round(2 * 3.5 * CHUNK_S / 3600, 2))]
    assert tags == [("Bird", 2, pytest.approx(0.9)), ("Dog", 2, pytest.approx(0.7))]
    at = datetime(2025, 5, 1, 3, 59, 58, tzinfo=UTC)
    assert [(row[0], round((row[2] - at).total_seconds(), 3)) for row in chunks] == [
        ("site1/a.wav", 0.0), ("site1/a.wav", 3 * CHUNK_S),
    ]  # fmt: skip
    assert month == [("Bird", 2)]
    assert hours == [("2025-05-01", 5, 1, 1.9), ("2025-05-01", 6, 1, 1.0)]
    assert scores[0] == ("site1/a.wav", 0, 0.0, pytest.approx(0.9))
    assert len(scores) == 8


def _last(database: duckdb.DuckDBPyConnection, code: str) -> list[tuple[Any, ...]]:
    set_variable, query, _ = code.split(";")
    database.execute(set_variable)
    return database.sql(query).fetchall()


def r_has(*packages: str) -> bool:
    """Return whether R is installed with these packages."""
    if shutil.which("Rscript") is None:
        return False
    code = "".join(f"stopifnot(requireNamespace('{package}', quietly = TRUE));" for package in packages)
    return subprocess.run(["Rscript", "-e", code], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "install"),
    [
        (("dplyr", "ggplot2"), "apt-get install r-base-core r-cran-dplyr r-cran-ggplot2"),
        (("dplyr", "ggplot2", "arrow"), 'install.packages("arrow") in R'),
    ],
)
def test_r_runs_the_code(folder: Path, packages: tuple[str, ...], install: str) -> None:
    if not r_has(*packages):
        pytest.skip(f"R with {', '.join(packages)}: {install}")
    code = "options(warn = 2)\n"  # warnings are errors
    for language, block in blocks("howto/r.md", "sh", "r"):
        if language == "sh":
            run_commands(block)
        elif "arrow" in packages or "library(arrow)" not in block:
            code += block
    code += "stopifnot(by_hour$hour == c(5, 6), best$events == 2)\n"
    code += "stopifnot(abs(by_hour$share - c(1.92 / 2, 0.96 / 4.72)) < 1e-3)\n"
    done = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "birds.png").stat().st_size > 5000
