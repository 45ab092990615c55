"""What the README says is so: its commands run, its tables are complete, its figures are the measured ones."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from click.testing import CliRunner
from conftest import ROOT
from helpers import model_by_rule
from satpipe.jobs.commands.main import cli
from satpipe.pipeline.tables import schemas
from satpipe.reports import readme
from satpipe.sat.model.config import get_config
from satpipe.sat.weights import hub
from satpipe.sat.weights.checkpoint import to_published

README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
Run = Callable[[str], str]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The lines of the shell blocks, without comments."""
    return [shlex.join(words) for block in blocks(text, "sh") for line in block.splitlines() if (words := split(line))]


def split(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def rows(header: str) -> list[list[str]]:
    """The cells of the README's table with that header, without the header."""
    lines = [line.strip() for line in README.splitlines()]
    begin = lines.index(header) + 2
    end = next(i for i in range(begin, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[begin:end]]


def code(cell: str) -> str:
    """What stands in a cell as code, or nothing."""
    found = re.fullmatch(r"`(.*)`", cell)
    return found[1].replace("\\|", "|") if found else ""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git knows or would add, with an environment that make takes for installed.

    The environment is that of these tests: installing another one takes minutes. What is installed there in editable
    mode are the packages of the original checkout, so the commands run its code, which is the same. The stamps that
    tell make so belong to the copy alone.
    """
    copy = tmp_path_factory.mktemp("checkout")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():  # not removed since it was added
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    environment = copy / ".venv"
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name not in (".installed", ".developing"):
            (environment / path.name).symlink_to(path)
    (environment / ".installed").touch()
    (environment / ".developing").touch()
    (environment / ".training").touch()
    return copy


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README calls /recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(2):
        noise = np.random.default_rng(number).uniform(-0.1, 0.1, 100_000)
        soundfile.write(folder / f"{number}.wav", noise, 16_000)
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
def run(checkout: Path, recordings: Path, mirror: dict[str, str]) -> Run:
    """Run a line of the README in the copy as a shell does; return what it prints."""

    def run(line: str) -> str:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(
            ["sh", "-c", re.sub(r"(?<=\s)/recordings\b", shlex.quote(str(recordings)), line)],
            capture_output=True,
            text=True,
            timeout=560,
            cwd=checkout,
            env={**ours, **mirror},
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def made(checkout: Path, run: Run) -> tuple[Path, str]:
    """The copy after `make tag`, and what that printed."""
    return checkout, run("make tag")


@pytest.fixture(scope="module")
def pulled(run: Run) -> str:
    return run(".venv/bin/satpipe models pull SAT_T_2s")


@pytest.fixture(scope="module")
def tagged(made: tuple[Path, str], run: Run) -> Path:
    """The copy after tagging /recordings too, with true labels under the names that the README has for them."""
    copy, _ = made
    run(".venv/bin/satpipe tag /recordings -o out")
    strong = [("0", 0.5, 3, "/m/09x0r"), ("1", 1, 2, "/m/04rlf"), ("-9DpfakhxAU_30000", 0, 10, "/m/0jbk")]
    rows = "".join(f"{clip}\t{onset_s}\t{offset_s}\t{mid}\n" for clip, onset_s, offset_s, mid in strong)
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    (copy / "audioset_eval_strong.tsv").write_text(header + rows)
    weak = [("speech_16k_mono", 0, "/m/09x0r"), ("music_44k1_stereo", 0, "/m/04rlf"), ("-9DpfakhxAU", 30, "/m/0jbk")]
    lines = [f'{clip}, {start_s:.3f}, {start_s + 10:.3f}, "{mids}"\n' for clip, start_s, mids in weak]
    (copy / "eval_segments.csv").write_text("# YTID, start_seconds, end_seconds, positive_labels\n" + "".join(lines))
    return copy


@pytest.fixture(scope="module")
def evaluated(tagged: Path, run: Run) -> tuple[Path, str]:
    """The copy after the first evaluation, and what that printed."""
    line = ".venv/bin/satpipe evaluate out --weak eval_segments.csv --strong audioset_eval_strong.tsv -o card"
    return tagged, run(line)


@pytest.fixture(scope="module")
def compared(tagged: Path, run: Run) -> tuple[Path, str]:
    """The copy after the evaluation of two folders, and what that printed."""
    run(".venv/bin/satpipe tag /recordings -o out_alone --memory off")
    folders = "out out_alone --strong audioset_eval_strong.tsv -o cards --table2 --table3"
    return tagged, run(f".venv/bin/satpipe evaluate {folders}")


def run_make_tag(line: str, request: pytest.FixtureRequest) -> None:
    copy, printed = request.getfixturevalue("made")
    assert "Bird vocalization" in printed
    assert f"The tables are in {copy}/out" in printed
    names = set(pd.read_parquet(copy / "out" / "recordings").recording)
    assert {"speech_16k_mono.WAV", "night/thunder_48k_mono.opus"} <= names
    # True tags: among the three that a recording has most of, in seven of the eight at least.
    scores = pd.read_parquet(copy / "out" / "tags").groupby(["recording", "label"], observed=True).score.sum()
    most = scores.groupby("recording", observed=True).nlargest(3).reset_index(level=0, drop=True)
    true = pd.read_csv(ROOT / "examples" / "labels.csv", index_col="path").labels.str.split(";")
    right = [any((name, label) in most.index for label in labels) for name, labels in true.items()]
    assert sum(right) >= len(right) - 1


def run_make_test(line: str, request: pytest.FixtureRequest) -> None:
    # Not these tests from within themselves: that it calls pytest, and that pytest leaves none out by itself.
    assert request.getfixturevalue("run")("make -n test") == ".venv/bin/pytest\n"
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert not {"-m", "-k", "--ignore", "--deselect"} & set(options["addopts"].replace("=", " ").split())
    assert options["filterwarnings"][0] == "error"


def run_make_check(line: str, request: pytest.FixtureRequest) -> None:
    printed = request.getfixturevalue("run")("make -n check")
    assert printed.split("\n") == [
        f".venv/bin/{tool}" for tool in ("ruff format --check .", "ruff check .", "mypy")
    ] + [""]


@pytest.fixture(scope="module")
def exported(run: Run) -> str:
    return run(".venv/bin/satpipe export bundled -o sat.onnx --check examples/recordings")


def run_export(line: str, request: pytest.FixtureRequest) -> None:
    printed = request.getfixturevalue("exported")
    assert printed.startswith("sat.onnx: SAT_T_2s, fp32, ")
    assert "chunks of examples/recordings: largest difference " in printed


def run_device_example(line: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("exported")
    rows = pd.read_csv(io.StringIO(request.getfixturevalue("run")(line)))
    assert "Speech" in set(rows[rows.chunk == 0].label)


def run_make_docs(line: str, request: pytest.FixtureRequest) -> None:
    # test_docs.py builds them.
    printed = request.getfixturevalue("run")("make -n docs").splitlines()
    assert shlex.split(printed[0])[:2] == [".venv/bin/sphinx-build", "-W"]


def run_quick_tests(line: str, request: pytest.FixtureRequest) -> None:
    printed = request.getfixturevalue("run")(f"{line} --collect-only -q")
    assert re.search(r"\d+/\d+ tests collected \(\d+ deselected\)", printed)


def run_tag(line: str, request: pytest.FixtureRequest) -> None:
    copy, _ = request.getfixturevalue("made")  # the same folder: what the examples gave stays
    request.getfixturevalue("run")(line)
    table = pd.read_parquet(copy / "out" / "recordings").set_index("recording")
    assert "speech_16k_mono.WAV" in table.index
    assert list(table.chunks[["0.wav", "1.wav"]]) == [4, 4]


def run_evaluate(line: str, request: pytest.FixtureRequest) -> None:
    copy, printed = request.getfixturevalue("evaluated")
    assert "2 of 3 clips found (not found: -9DpfakhxAU" in printed
    card = json.loads((copy / "card" / "evaluate.json").read_text())
    assert {"mAP", "segment_f1", "onset_f1", "event_f1", "error_rate", "psds1"} <= {f["name"] for f in card["figures"]}
    assert len(pd.read_csv(copy / "card" / "classes.csv")) == 527


def run_tag_alone(line: str, request: pytest.FixtureRequest) -> None:
    copy, _ = request.getfixturevalue("compared")
    assert json.loads((copy / "out_alone" / "run.json").read_text())["identity"]["memory"] == "off"


def run_evaluate_both(line: str, request: pytest.FixtureRequest) -> None:
    copy, printed = request.getfixturevalue("compared")
    assert "Table 2 of Dinkel et al." in printed
    assert "Table 3 of Dinkel et al." in printed
    assert {path.name for path in (copy / "cards").iterdir()} == {"out", "out_alone"}


def run_compare(line: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("compared")
    assert "segment-F1, 1.92 s" in request.getfixturevalue("run")(line)


def run_tag_joined(line: str, request: pytest.FixtureRequest) -> None:
    assert "start known of 0 of 2 recordings" in request.getfixturevalue("run")(line)


def run_stream(line: str, request: pytest.FixtureRequest) -> None:
    *_, last, end = map(json.loads, request.getfixturevalue("run")(line).splitlines())
    assert {"source", "chunk", "start_s", "end_s", "tags"} <= set(last)
    assert last["tags"][0]["label"] == "Speech"
    assert (end["event"], end["end_s"]) == ("end", 10.0)


def run_events(line: str, request: pytest.FixtureRequest) -> None:
    copy, run = request.getfixturevalue("tagged"), request.getfixturevalue("run")
    assert f"recordings: {copy / 'out' / 'events.parquet'}" in run(line)
    found = pd.read_parquet(copy / "out" / "events.parquet")
    assert {"Bird", "Speech"} <= set(found.label)
    assert found.peak_score.min() >= 0.3


def run_report(line: str, request: pytest.FixtureRequest) -> None:
    copy, run = request.getfixturevalue("made")[0], request.getfixturevalue("run")
    assert run(line).strip() == str(copy / "report.html")
    text = (copy / "report.html").read_text()
    assert "Sounds in out" in text
    assert "speech_16k_mono.WAV" in text


def run_install_browser(line: str, request: pytest.FixtureRequest) -> None:
    # Not again for each test: CI does, before it runs them.
    steps = [step.strip() for step in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert steps.index("apt-get update") < steps.index(f"{line} <<<y") < steps.index("make test")
    assert "export CI=true" in steps  # there, the tests fail without a browser


def run_report_evaluation(line: str, request: pytest.FixtureRequest) -> None:
    copy, _ = request.getfixturevalue("evaluated")
    request.getfixturevalue("run")(line)
    names = {path.name for path in (copy / "pictures").iterdir()}
    assert {"classes_average_precision.png", "psd_roc.svg", "branches.svg", "tables.html", "tables.tex"} <= names


def run_report_consistency(line: str, request: pytest.FixtureRequest) -> None:
    copy, _ = request.getfixturevalue("compared")
    if not (copy / "out_sat").exists():
        run_tag_pulled(".venv/bin/satpipe tag /recordings -o out_sat --model SAT_T_2s", request)
    printed = request.getfixturevalue("run")(line)
    assert "| Bird | 0.wav | SAT_T_2s, 2 s, memory (out_sat) |" in printed
    assert "| Vehicle | 1.wav | SAT_T_2s, 2 s, no memory (out_alone) |" in printed
    names = {path.name for path in (copy / "steadiness").iterdir()}
    assert names == {f"consistency.{ending}" for ending in ("json", "csv", "png", "svg")}


def run_synth(line: str, request: pytest.FixtureRequest) -> None:
    run, copy = request.getfixturevalue("run"), request.getfixturevalue("checkout")
    assert "scenes: 20, together 0:10:00" in run(line)
    assert len(list((copy / "scenes" / "audio").iterdir())) == 20


def run_tag_scenes(line: str, request: pytest.FixtureRequest) -> None:
    run, copy = request.getfixturevalue("run"), request.getfixturevalue("checkout")
    run(line)
    assert len(pd.read_parquet(copy / "out_scenes" / "recordings")) == 20


def run_evaluate_scenes(line: str, request: pytest.FixtureRequest) -> None:
    assert "20 of 20 clips found" in request.getfixturevalue("run")(line)


def run_models(line: str, request: pytest.FixtureRequest) -> None:
    printed = request.getfixturevalue("run")(line)
    assert all(name in printed for name in hub.PUBLISHED)


def run_status(line: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("made")
    printed = request.getfixturevalue("run")(line)
    assert printed.startswith("finished")
    assert "model: SAT_T_2s" in printed


def run_profile(line: str, request: pytest.FixtureRequest) -> None:
    printed = request.getfixturevalue("run")(line)
    assert "| SAT_T_2s | 5.5 | 48 | 48/48 |" in printed


def run_pull(line: str, request: pytest.FixtureRequest) -> None:
    assert "SAT_T_2s is in " in request.getfixturevalue("pulled")


def run_tag_pulled(line: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("pulled")
    request.getfixturevalue("run")(line)
    out = request.getfixturevalue("checkout") / "out_sat"
    assert len(pd.read_parquet(out / "scores")) == 8
    assert json.loads((out / "run.json").read_text())["identity"]["arch"] == "SAT_T_2s"


def run_train_smoke(line: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("run")(line)
    built = request.getfixturevalue("checkout") / "build" / "train-smoke"
    assert (built / "sat" / "model.safetensors").exists()
    assert len(pd.read_parquet(built / "tags" / "recordings")) == 8


# All take the line and the request of the test, for its fixtures.
RUNNERS = {
    "make tag": run_make_tag,
    "make test": run_make_test,
    ".venv/bin/satpipe tag /recordings -o out": run_tag,
    ".venv/bin/satpipe models": run_models,
    ".venv/bin/satpipe models pull SAT_T_2s": run_pull,
    ".venv/bin/satpipe tag /recordings -o out_sat --model SAT_T_2s": run_tag_pulled,
    ".venv/bin/satpipe tag /recordings -o out_joined --time-zone Europe/Berlin --join": run_tag_joined,
    ".venv/bin/satpipe stream examples/recordings/speech_16k_mono.WAV --idle-s 0": run_stream,
    ".venv/bin/satpipe report out -o report.html": run_report,
    ".venv/bin/satpipe events out --labels under:Animal --labels Speech --threshold 0.3 --merge-gap-s 4": run_events,
    ".venv/bin/satpipe evaluate out --weak eval_segments.csv --strong audioset_eval_strong.tsv -o card": run_evaluate,
    ".venv/bin/satpipe tag /recordings -o out_alone --memory off": run_tag_alone,
    ".venv/bin/satpipe evaluate out out_alone --strong audioset_eval_strong.tsv -o cards --table2 --table3": (
        run_evaluate_both
    ),
    ".venv/bin/satpipe evaluate --compare cards/out cards/out_alone": run_compare,
    ".venv/bin/satpipe report --evaluation card -o pictures": run_report_evaluation,
    ".venv/bin/satpipe report --consistency Bird,Vehicle out_sat out_alone -o steadiness": run_report_consistency,
    ".venv/bin/satpipe synth -o scenes --foreground examples/sounds.csv --scenes 20 --length-s 30": run_synth,
    ".venv/bin/satpipe tag scenes/audio -o out_scenes": run_tag_scenes,
    ".venv/bin/satpipe evaluate out_scenes --strong scenes/strong.tsv --weak scenes/weak.csv -o card_scenes": (
        run_evaluate_scenes
    ),
    ".venv/bin/satpipe status out": run_status,
    "make train-smoke": run_train_smoke,
    ".venv/bin/satpipe profile SAT_T_2s": run_profile,
    ".venv/bin/satpipe export bundled -o sat.onnx --check examples/recordings": run_export,
    ".venv/bin/python examples/device/tag.py sat.onnx examples/recordings/speech_16k_mono.WAV": run_device_example,
    "make docs": run_make_docs,
    "apt-get install chromium chromium-driver": run_install_browser,
    "make check": run_make_check,
    ".venv/bin/pytest -m 'not slow'": run_quick_tests,
}
SLOW = (
    "make tag",
    "make train-smoke",
    ".venv/bin/satpipe tag",
    ".venv/bin/satpipe evaluate",
    ".venv/bin/satpipe events",
    ".venv/bin/satpipe stream",
    ".venv/bin/satpipe export",
    ".venv/bin/python examples/device",
    ".venv/bin/satpipe report",
    ".venv/bin/satpipe synth",
    ".venv/bin/satpipe status",
    ".venv/bin/satpipe models pull",
    ".venv/bin/satpipe profile",
    ".venv/bin/pytest",
)
COMMANDS = dict.fromkeys(commands(README) + commands(CONTRIBUTING))


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] * line.startswith(SLOW)) for line in COMMANDS]
)
def test_every_command_does_what_it_is_there_for(line: str, request: pytest.FixtureRequest) -> None:
    assert line in RUNNERS, f"no test runs `{line}`: add what it should do to RUNNERS"
    RUNNERS[line](line, request)


def test_the_commands_that_are_tested_are_those_of_the_documents() -> None:
    assert list(RUNNERS) == list(COMMANDS)


def test_every_make_target_that_is_named_is_there(run: Run) -> None:
    named = set(re.findall(r"`?\bmake ([a-z-]+)(?=`|\s+#)", README + CONTRIBUTING))
    assert {"tag", "test", "check", "bench"} <= named
    for target in named:
        run(f"make -n {target}")
    # The first of the two has a test of its own, test_benchmark.py.
    bench = run("make -n bench").splitlines()
    assert bench[0] == ".venv/bin/satpipe benchmark examples/recordings -o reports/benchmark.json"
    assert bench[1:] == [".venv/bin/python -m satpipe.reports.readme"]
    run(bench[1])


def check_reading(names: dict[str, Any], printed: str, block: str) -> None:
    columns = re.search(r"# (.*)", block)
    assert columns
    assert list(names["tags"].columns) == columns[1].split(", ")
    assert len(names["birds"])
    assert "birds_48k_stereo.opus" in printed
    assert re.search(r"^ok +0\.0\d+$", printed, re.MULTILINE)


def check_frames(names: dict[str, Any], printed: str, block: str) -> None:
    assert "birds_48k_stereo.opus" in set(names["birds"].recording)
    assert set(names["scores"].recording) == {"birds_48k_stereo.opus", "night/thunder_48k_mono.opus"}
    assert len(names["loud"])


def check_streaming(names: dict[str, Any], printed: str, block: str) -> None:
    assert names["scores"].shape == (1, 527)
    assert names["rest"].shape == (1, 527)


def check_card(names: dict[str, Any], printed: str, block: str) -> None:
    assert {"mAP", "segment_f1"} <= set(names["figures"].name)
    assert "classes_averaged" in printed


CHECKS = {
    "import pandas as pd": check_reading,
    "from satpipe.jobs.events import events": check_frames,
    "import json": check_card,
    "import torch": check_streaming,
}


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(README, "python"), ids=lambda block: block.splitlines()[0])
def test_every_python_block_runs(
    block: str, evaluated: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evaluated[0])
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    CHECKS[block.splitlines()[0]](names, capsys.readouterr().out, block)


@pytest.mark.slow
def test_duckdb_and_polars_read_the_tables(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made[0])
    statement = re.search(r"`(SELECT [^`]*)`", README)
    assert statement
    counts = pd.read_parquet("out/tags").label.astype(str).value_counts().to_dict()
    assert dict(duckdb.sql(statement[1]).fetchall()) == counts
    assert dict(pl.read_parquet("out/tags/*.parquet")["label"].cast(pl.String).value_counts().iter_rows()) == counts


@pytest.mark.slow
def test_the_table_of_tables_has_their_columns(made: tuple[Path, str]) -> None:
    described = {
        code(table): re.findall(r"`(\w+)`", columns.partition(":")[0])
        for table, _, columns in rows("| table | one row for | columns |")
    }
    assert described.pop("out/run.json") == []
    assert {folder: sorted(columns) for folder, columns in described.items()} == {
        f"out/{name}": sorted(schema.names) for name, schema in schemas.SCHEMAS.items()
    }
    for folder, columns in described.items():
        for path in (made[0] / folder).iterdir():
            assert sorted(pq.read_schema(path).names) == sorted(columns)


def test_the_option_table_is_that_of_the_command() -> None:
    command = cli.commands["tag"]
    printed = CliRunner().invoke(cli, ["tag", "--help"]).output
    defaults = command.make_context("tag", ["in", "-o", "out"]).params
    options = [option for option in command.params if isinstance(option, click.Option) and not option.required]
    found = []
    for cell, default, _ in rows("| option | default | |"):
        *flags, last = code(cell).split(" / ")
        flag, _, value = last.partition(" ")
        flags.append(flag)
        assert all(flag in printed for flag in flags)
        matching = [option for option in options if set(flags) <= {*option.opts, *option.secondary_opts}]
        assert len(matching) == 1, f"{flags} in the README"
        option = matching[0]
        found.append(str(option.name))
        assert_documented_value(option, value)
        match defaults[option.name]:
            case None:
                assert not code(default), cell
                assert default in (option.help or ""), cell
            case bool(on):
                assert default == ("on" if on else ""), cell
            case float() | int() as number:
                assert code(default) == f"{number:g}", cell
            case text:
                assert code(default) == text, cell
    assert sorted(found) == sorted(str(option.name) for option in options)
    usage = re.search(r"`satpipe tag (.*?)`; INPUT", README)
    assert usage
    assert usage[1] == "INPUT... -o OUT"
    assert {p.name for p in command.params if p.required} == {"inputs", "out"}


def assert_documented_value(option: click.Option, value: str) -> None:
    """The README names a value where the option takes one, and the choices where there are choices."""
    assert bool(value) != option.is_flag, option.name
    if isinstance(option.type, click.Choice):
        assert value.split("|") == list(option.type.choices)
    elif option.metavar:
        assert value == option.metavar


def test_the_table_of_statuses_has_every_status() -> None:
    assert [code(status) for status, _ in rows("| status | |")] == list(schemas.STATUSES)


def all_commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{before}{name} ")


@pytest.mark.parametrize("name", [name for name, _ in all_commands(cli)])
def test_every_command_has_help(name: str) -> None:
    text = dict(all_commands(cli))[name].help
    assert text
    shown = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert text.split()[:5] == shown.output.split("\n\n")[1].split()[:5]


def test_the_figures_are_the_measured_ones() -> None:
    assert readme.fill(README, readme.measured()) == README, "run `python -m satpipe.reports.readme`"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text())
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [file for file in files if file and not (ROOT / file).exists()] == []


def test_contributing_names_the_folders_and_modules_there_are() -> None:
    named = re.findall(r"^\| `(\w+)` \| (.*) \|$", CONTRIBUTING, re.MULTILINE)
    assert {folder for folder, _ in named} == {"sat", "pipeline", "jobs", "reports", "tests"}
    assert all((ROOT / folder).is_dir() for folder, _ in named)
    modules = set(re.findall(r"`(\w+)`", dict(named)["pipeline"]))
    assert modules == {path.stem for path in (ROOT / "pipeline").glob("[!_]*.py")}
