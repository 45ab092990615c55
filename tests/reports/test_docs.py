"""The documentation: it builds without a warning, its tutorial runs and finds what is true, its commands are ones."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import unquote, urlsplit

import click
import pytest
from bs4 import BeautifulSoup
from satpipe.jobs.commands.main import cli
from satpipe.jobs.train.config import CONFIG_FOLDER, TrainConfig
from satpipe.pipeline.tables import schemas
from texts import DOCS, ROOT, TEXTS, all_commands

NOT_NAMES = {"satpipe.fish", "satpipe.schema", "satpipe.taggers"}  # a file, a key of metadata, a group of entry points
PAGES = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))


def test_every_name_of_satpipe_in_the_texts_exists() -> None:
    text = "\n".join(TEXTS.values())
    names = {name for name in re.findall(r"\bsatpipe(?:\.\w+)+", text) if name not in NOT_NAMES}
    for module, members in re.findall(r"automodule:: (\S+)\n\s+:members: (.+)", text):
        names |= {f"{module}.{member}" for member in members.split(", ")}
    assert sorted(name for name in names if not exists(name)) == []


def exists(name: str) -> bool:
    """Return whether a dotted name is a module or something in one."""
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them."""
    target = tmp_path_factory.mktemp("docs")
    recipe = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    builder, *arguments = shlex.split(next(line for line in recipe.splitlines() if "sphinx-build" in line))
    assert arguments[-2:] == ["reports/docs", "build/docs"]
    assert {"-W", "-n"} <= set(arguments), "warnings are errors"
    command = [str(Path(sys.executable).parent / Path(builder).name), *arguments[:-1], str(target)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=560, env={**os.environ, **offline()}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def offline() -> dict[str, str]:
    """Variables that lead whatever asks the network into nothing."""
    nowhere = "http://127.0.0.1:9"
    return {name: nowhere for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, BeautifulSoup]:
    """Each page, parsed, by its path."""
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


@pytest.mark.slow
def test_every_page_is_there_and_is_reached_from_the_first(pages: dict[str, BeautifulSoup]) -> None:
    assert {f"{page}.html" for page in PAGES} <= pages.keys()
    linked = {
        link["href"].partition("#")[0] for link in pages["index.html"].select("nav a[href], .sidebar-tree a[href]")
    }
    assert {f"{page}.html" for page in PAGES} - {"index.html"} <= linked
    for page in PAGES:
        assert len(pages[f"{page}.html"].select_one("article").get_text()) > 500, f"{page} says next to nothing"


@pytest.mark.slow
def test_the_tutorial_was_run_and_its_answer_is_true(pages: dict[str, BeautifulSoup]) -> None:
    tutorial = pages["tutorial.html"].select_one("article")
    cells = re.findall(
        r"^```\{code-cell\}\n(?!:tags: \[remove-cell\])", (DOCS / "tutorial.md").read_text(), re.MULTILINE
    )
    assert len(tutorial.select("div.cell_input")) == len(cells)
    text = tutorial.get_text()
    made = re.search(r"first_bird = datetime\((.*?)\)", text)
    said = re.search(r"The birds begin to sing at (\d\d:\d\d:\d\d)\.", text)
    assert made
    assert said
    year, month, day, hour, minute, second = map(int, made[1].split(","))
    first = datetime(year, month, day, hour + 2, minute, second)  # in Berlin, in May
    answer = datetime.strptime(f"{first:%Y-%m-%d} {said[1]}", "%Y-%m-%d %H:%M:%S")
    assert abs((answer - first).total_seconds()) < 2
    assert "truncated" in text
    assert tutorial.select("div.cell_output img")


@pytest.mark.slow
def test_the_page_on_own_classes_was_run_and_the_gate_was_found(pages: dict[str, BeautifulSoup]) -> None:
    text = pages["own_classes.html"].select_one("article").get_text()
    found = re.search(r"'(\d+) of 12 squeaks, (\d+) events'", text)
    assert found
    assert int(found[1]) >= 10
    assert int(found[2]) <= 14


@pytest.mark.slow
def test_every_command_has_its_section_with_every_option(pages: dict[str, BeautifulSoup]) -> None:
    page = pages["reference/cli.html"]
    for name, command in all_commands():
        if command.hidden:
            continue
        section = page.find(id=name.replace(" ", "-"))
        assert section, f"there is no section on {name}"
        about = section.get_text()
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(flag in about for flag in option.opts + option.secondary_opts), (name, option.name)


@pytest.mark.slow
def test_the_tables_of_the_reference_are_those_of_the_code(pages: dict[str, BeautifulSoup]) -> None:
    found = [
        [row.select_one("td").get_text() for row in table.select("tbody tr")]
        for table in pages["reference/tables.html"].select("table")
    ]
    for schema in (
        *schemas.SCHEMAS.values(),
        schemas.EVENTS,
        schemas.HITS,
        schemas.CHANGES,
        schemas.CURVES,
        schemas.CLIPS,
        schemas.SEGMENTS,
    ):
        assert schema.names in found
    assert list(schemas.STATUSES) in found
    start = next(
        row for row in pages["reference/tables.html"].select("tr") if row.get_text().strip().startswith("start_s")
    )
    assert "from the recording's start" in start.get_text()
    configurations = pages["reference/configurations.html"].get_text()
    assert all(path.stem in configurations for path in CONFIG_FOLDER.glob("*.yaml"))
    assert all(key in configurations for key in TrainConfig.model_fields)


@pytest.mark.slow
def test_no_link_inside_is_broken_and_nothing_is_fetched(site: Path, pages: dict[str, BeautifulSoup]) -> None:
    names = {page: {tag["id"] for tag in parsed.select("[id]")} for page, parsed in pages.items()}
    broken = []
    for page, parsed in pages.items():
        for tag in parsed.select("a[href], link[href], script[src], img[src]"):
            href = tag.get("href") or tag["src"]
            link = urlsplit(href)
            if link.scheme or link.netloc:
                assert tag.name == "a" or link.scheme == "data", f"{page} fetches {href}"
                continue
            target = (site / page).parent / unquote(link.path) if link.path else site / page
            anchors = names.get(os.path.relpath(target, site))
            if not target.exists() or (link.fragment and anchors is not None and unquote(link.fragment) not in anchors):
                broken.append(f"{page}: {href}")
    assert broken == []


def command_lines(text: str) -> Iterator[tuple[list[str], bool]]:
    """The words after `satpipe` in a text, and whether they are a whole command, not one mentioned in a sentence."""
    blocks = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
    for block in blocks.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?satpipe (.*)", line):
                yield words(found[1]), True
    for span in re.findall(r"`(?:\.venv/bin/)?satpipe (\w[^`]*)`", blocks.sub("", text)):
        yield words(span), False


def words(line: str) -> list[str]:
    """The words of a shell's line up to a comment, a pipe or another command."""
    parts = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
    parts.whitespace_split = True
    return list(iter(lambda: next((part for part in parts if part), "||"), "||"))


LINES = dict.fromkeys(
    (name.rpartition("/")[2], whole, *line) for name, text in TEXTS.items() for line, whole in command_lines(text)
)


def parse(line: list[str], command: click.Command = cli, name: str = "satpipe") -> None:
    """Parse a command line as the command does, and do nothing.

    Raises:
        click.UsageError: It is wrong.
    """
    context = command.make_context(name, list(line))
    if isinstance(command, click.Group) and line and not line[0].startswith("-"):
        name, below, rest = command.resolve_command(context, list(line))
        parse(rest, below, name)


@pytest.fixture
def _files_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, command in all_commands():
        for param in command.params:
            if isinstance(param.type, click.Path):
                monkeypatch.setattr(param.type, "exists", False)


@pytest.mark.usefixtures("_files_are_there")
@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line[0]}: {' '.join(line[2:])}")
def test_every_command_in_the_texts_is_one(line: tuple[str, bool, str]) -> None:
    _, whole, *typed = line
    try:
        parse(typed)
    except click.exceptions.Exit:
        assert typed[-1] == "--help"
    except (click.MissingParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError):
        if whole:
            raise


@pytest.mark.usefixtures("_files_are_there")
@pytest.mark.parametrize(
    "line",
    ["tag in --ouput out", "tagg in -o out", "models pull", "models fetch X", "train psl mae_tiny -o out", "psl"],
)
def test_a_command_that_is_none_would_be_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line.split())
