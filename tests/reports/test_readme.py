"""The README is correct: its tables are complete, its figures are the measured ones, its links lead somewhere."""

import re

import click
import pytest
from click.testing import CliRunner
from satpipe.jobs.commands.main import cli
from satpipe.pipeline.tables import schemas
from satpipe.reports import readme
from texts import CONTRIBUTING, README, ROOT, TEXTS, all_commands, code, rows


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 152


def test_the_table_of_tables_has_their_columns() -> None:
    described = {
        code(table): re.findall(r"`(\w+)`", columns.partition(":")[0])
        for table, _, columns in rows(README, "| table | one row per | columns |")
    }
    assert described.pop("out/run.json") == []
    assert {folder: sorted(columns) for folder, columns in described.items()} == {
        f"out/{name}": sorted(schema.names) for name, schema in schemas.SCHEMAS.items()
    }


def test_the_option_table_states_names_values_and_defaults_of_the_command() -> None:
    command = cli.commands["tag"]
    printed = CliRunner().invoke(cli, ["tag", "--help"]).output
    defaults = command.make_context("tag", ["in"]).params
    options = [option for option in command.params if isinstance(option, click.Option) and not option.required]
    found = []
    for cell, default, _ in rows(README, "| option | default | |"):
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
    assert len(set(found)) == 10  # test_docs.py holds that the documentation has all of them
    usage = re.search(r"`satpipe tag (.*?)`; INPUT", README)
    assert usage
    assert usage[1] == "INPUT..."
    assert [p.name for p in command.params if isinstance(p, click.Argument)] == ["inputs"]


def assert_documented_value(option: click.Option, value: str) -> None:
    """The README names a value where the option takes one, and the choices where there are choices."""
    assert bool(value) != option.is_flag, option.name
    if isinstance(option.type, click.Choice):
        assert value.split("|") == list(option.type.choices)
    elif option.metavar:
        assert value == option.metavar


@pytest.mark.parametrize("name", [name for name, _ in all_commands() if name != "satpipe"])
def test_every_command_has_help(name: str) -> None:
    text = dict(all_commands())[name].help
    assert text
    shown = CliRunner().invoke(cli, [*name.split()[1:], "--help"])
    assert shown.exit_code == 0
    assert text.split()[:5] == shown.output.split("\n\n")[1].split()[:5]


@pytest.mark.parametrize("document", readme.DOCUMENTS)
def test_the_figures_are_the_measured_ones(document: str) -> None:
    filled = readme.fill(TEXTS[document], readme.measured(), document)
    assert filled == TEXTS[document], "run `python -m satpipe.reports.readme`"


def test_figures_stand_between_marks_in_the_documents_that_are_filled_and_nowhere_else() -> None:
    marks = {name: re.findall(r"<!-- (?!end of )(\w+) -->", text) for name, text in TEXTS.items()}
    expected = {name: [section.__name__ for section in readme.DOCUMENTS.get(name, ())] for name in TEXTS}
    assert {name: sorted(found) for name, found in marks.items()} == {n: sorted(f) for n, f in expected.items()}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXTS[name])
    files = [link.partition("#")[0] for link in links if "://" not in link]
    folder = (ROOT / name).parent
    assert [file for file in files if file and not (folder / file).exists()] == []


def test_contributing_names_the_folders_there_are() -> None:
    tree = re.search(r"```text\n(sat/.*?)```", CONTRIBUTING, re.DOTALL)
    assert tree
    named: dict[str, set[str]] = {}
    top = ""
    for line in tree[1].splitlines():
        names = [word for word in line.split() if word.endswith(("/", ".py"))]
        if line.startswith(" "):
            named[top] |= set(names)
        else:
            top = names[0]
            named[top] = set()
    assert set(named) == {"sat/", "pipeline/", "jobs/", "reports/", "tests/"}
    for top, names in named.items():
        assert all((ROOT / top / name).exists() for name in names), names
    for top in ("sat/", "pipeline/", "jobs/", "reports/"):
        rooms = {f"{path.parent.name}/" for path in (ROOT / top).glob("*/__init__.py")}
        assert rooms <= named[top], f"CONTRIBUTING does not name all rooms of {top}"
