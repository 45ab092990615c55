"""The command line as a whole: groups, help, options that stand once, exit codes, completion."""

import os
import subprocess
import sys
import time
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import COMMAND, Satpipe
from outputs import scores_of, write_output
from satpipe.jobs.commands.main import SECTIONS, cli
from satpipe.jobs.commands.shared import options
from satpipe.jobs.options import measure, models, results, tag, train
from satpipe.pipeline.option import Option, Options, declared, lists
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.sat.errors import ConfigError
from texts import all_commands

OPTIONS_OF = {
    "tag": [tag.TagOptions],
    "stream": [tag.StreamOptions],
    "events": [results.EventOptions],
    "report": [results.ReportOptions],
    "evaluate": [results.EvaluateOptions],
    "report-consistency": [results.ConsistencyOptions],
    "prepare": [train.PrepareOptions],
    "psl": [train.LabelOptions, SegmentOptions],
    "synth": [measure.SynthOptions],
    "export": [models.ExportOptions],
}
SUPPORT = Path(__file__).parents[1] / "support"
HEAVY = ("torch", "ray", "pandas", "numpy", "pyarrow", "rich", "requests")


def test_the_help_shows_every_command_in_its_group_with_a_whole_summary() -> None:
    printed = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    assert [section.name for section in SECTIONS] == [
        "Tag", "Results", "Own classes", "Train", "Measure", "Models and labels"
    ]  # fmt: skip
    assert "..." not in printed.partition("Options:")[2]
    for section in SECTIONS:
        listed = printed.partition(f"\n{section.name}:\n")[2].partition("\n\n")[0]
        for name, command in section.commands.items():
            (line,) = [line for line in listed.splitlines() if line.split()[0] == name]
            assert line == f"  {name:18}  {command.get_short_help_str(1000)}", "a summary must fit into one line"
    assert sorted(cli.commands) == sorted(name for section in SECTIONS for name in section.commands)


@pytest.mark.parametrize("name", dict(all_commands()))
def test_every_option_has_a_help_text(name: str) -> None:
    command = dict(all_commands())[name]
    assert command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.name}"


def test_help_is_quick_and_names_every_command(satpipe: Satpipe) -> None:
    begun = time.monotonic()
    printed = satpipe("--help").stdout
    assert time.monotonic() - begun < 5
    assert set(cli.commands) <= set(printed.split())


@pytest.mark.parametrize("arguments", [["--help"], ["tag", "--help"], ["evaluate", "--help"], ["train", "--help"]])
def test_help_loads_no_large_package(arguments: list[str]) -> None:
    code = (
        "import sys; from satpipe.jobs.commands.main import cli; cli.main(sys.argv[1:], standalone_mode=False); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code, *arguments], text=True)
    assert printed.splitlines()[-1] == "[]"


def test_commands_that_need_no_model_load_neither_torch_nor_ray_nor_pandas(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"a.wav": scores_of(2, Speech=[0.9, 0.9])})
    code = (
        "import sys; from satpipe.jobs.commands.main import run; assert run() == 0; "
        "print(sorted({'torch', 'ray', 'pandas'} & set(sys.modules)))"
    )
    for arguments in (["models"], ["status", tmp_path / "out"]):
        printed = subprocess.check_output([sys.executable, "-c", code, *arguments], text=True)
        assert printed.splitlines()[-1] == "[]", arguments


@pytest.mark.parametrize("name", OPTIONS_OF)
def test_a_command_has_the_options_of_its_dataclass(name: str) -> None:
    parameters = {each.name: each for each in cli.commands[name].params if isinstance(each, click.Option)}
    for each in (each for of in OPTIONS_OF[name] for each in declared(of)):
        option = parameters[each.name]
        assert option.opts == [flag.partition("/")[0] for flag in each.flags]
        assert option.required == (each.default is MISSING)
        assert option.help is not None
        assert option.help.startswith(each.option.help)
        if each.default is not MISSING and not option.multiple:
            assert option.default == each.default, each.name


@dataclass(frozen=True)
class Some(Options):
    """One option of each kind."""

    text: Annotated[str, Option("Text.")]
    switch: Annotated[bool, Option("Switch.")] = False
    default_on: Annotated[bool, Option("Other switch.")] = True
    number: Annotated[int, Option("Number.", minimum=1, maximum=9)] = 5
    part: Annotated[float | None, Option("Part.", minimum=0, maximum=1, above=True, below=True)] = None
    choice: Annotated[Literal["a", "b"], Option("Choice.")] = "a"
    several: Annotated[tuple[str, ...], Option("Several.", flags=("-s", "--several"))] = ()
    pairs: Annotated[tuple[tuple[str, str], ...], Option("Pairs.")] = ()
    two: Annotated[tuple[float, float], Option("Two.")] = (1.0, 2.0)
    path: Annotated[Path | None, Option("Path.")] = None


def given(*arguments: str) -> Any:
    """What a command with these options is called with, or the message that refuses the arguments."""
    found: dict[str, Any] = {}

    @click.command()
    @options(Some)
    def command(**options: Any) -> None:
        found.update(options)

    done = CliRunner().invoke(command, list(arguments))
    return Some(**found) if done.exit_code == 0 else done.output


def test_options_come_from_annotated_fields() -> None:
    assert given("--text", "x") == Some("x")
    arguments = "--text x --switch --no-default-on --number 9 --part 0.5 --choice b -s one --several two"
    arguments += " --pairs a=1 --pairs b==2 --two 3 4 --path p"
    pairs = (("a", "1"), ("b", "=2"))
    expected = Some("x", True, False, 9, 0.5, "b", ("one", "two"), pairs, (3.0, 4.0), Path("p"))
    assert given(*arguments.split()) == expected


@pytest.mark.parametrize(
    ("name", "value", "message", "command_message"),
    [
        ("number", 10, "--number must be from 1 to 9, not 10", "10 is not in the range 1<=x<=9"),
        ("number", "many", "--number must be a whole number, not 'many'", "'many' is not a valid integer"),
        ("part", 0, "--part must be above 0 and below 1, not 0", "0.0 is not in the range 0<x<1"),
        ("part", float("nan"), "--part must be above 0 and below 1, not nan", None),
        ("choice", "c", "--choice must be a or b, not 'c'", "'c' is not one of 'a', 'b'"),
        ("switch", 1, "--switch must be True or False, not 1", None),
        ("pairs", "a", None, "must be COLUMN=VALUE, not a"),
    ],
)
def test_values_outside_their_limits_are_refused(
    name: str, value: Any, message: str | None, command_message: str | None
) -> None:
    if message:
        with pytest.raises(ConfigError) as caught:
            Some(**{"text": "x", name: value})
        assert str(caught.value) == message
    if command_message:
        assert command_message in given("--text", "x", f"--{name}", str(value))


def test_numbers_and_paths_can_be_given_where_text_is_expected() -> None:
    assert (Some(Path("a/b")).text, Some(3).text) == ("a/b", "3")  # type: ignore[arg-type]


def test_options_of_a_function_are_checked_and_have_the_value_of_their_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Named(Options):
        text: Annotated[str, Option("Text.")]
        out: Annotated[str, Option("Folder.", variable="SATPIPE_OUT")] = "out"
        labels: Annotated[str | bool | None, Option("Labels.", bare="usual")] = None

    @lists(Named)
    def function(first: int, **given: Any) -> Any:
        """Return: the options."""
        return Named(**given)

    monkeypatch.delenv("SATPIPE_OUT", raising=False)
    with pytest.raises(TypeError, match=r"function\(\) needs the option 'text'"):
        function(1)
    assert function(1, text="x", labels=True) == Named("x", "out", "usual")
    monkeypatch.setenv("SATPIPE_OUT", "elsewhere")
    assert function(1, text="x").out == "elsewhere"
    assert function(1, text="x", out="here").out == "here"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("--help > /dev/full", "OSError: No space left on device"),
        ("stream - <&-", "ConfigError: standard input is closed: pipe samples into it, or name another source"),
    ],
)
def test_standard_streams_that_cannot_be_used_are_one_line(command: str, error: str) -> None:
    done = subprocess.run(["bash", "-c", f"{COMMAND} {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{error}\n")


def test_threads_that_still_read_do_not_abort_the_end(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(1000)}), tmp_path / "table.parquet")
    command = [sys.executable, SUPPORT / "reading_at_exit.py", "read", tmp_path / "table.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "OutputError: as intended\n")


def test_a_wrong_command_line_ends_with_2_and_an_error_with_1(satpipe: Satpipe, tmp_path: Path) -> None:
    wrong = satpipe("tag", "--nonsense")
    assert (wrong.returncode, "--nonsense" in wrong.stderr) == (2, True)
    failed = satpipe("status", tmp_path)
    assert (failed.returncode, failed.stderr.startswith("OutputError: ")) == (1, True)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("satpipe ev", {"events", "evaluate"}), ("satpipe tag --mem", {"--memory"}), ("satpipe tag --cut s", {"script"})],
)
def test_a_shell_completes_commands_options_and_values(words: str, completed: set[str]) -> None:
    env = {"_SATPIPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    printed = subprocess.check_output([str(COMMAND)], env={**os.environ, **env}, text=True)
    assert {line.partition(",")[2] for line in printed.splitlines()} == completed
