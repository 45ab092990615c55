"""The README, CONTRIBUTING and the documentation as texts: their blocks of code, tables and commands."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
from satpipe.jobs.commands.main import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "reports" / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
}
"""All texts by their path in the project, the README first."""


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def commands(text: str) -> list[str]:
    """Return the lines of the shell blocks, without comments."""
    lines = "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines) if line]


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table with that header, without the header."""
    lines = [line.strip() for line in text.splitlines()]
    begin = lines.index(header) + 2
    end = next(i for i in range(begin, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[begin:end]]


def code(cell: str) -> str:
    """Return the content of a cell that is code, else an empty text."""
    found = re.fullmatch(r"`(.*)`", cell)
    return found[1].replace("\\|", "|") if found else ""


def all_commands(command: click.Command = cli, name: str = "satpipe") -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all its subcommands, with their full names."""
    yield name, command
    if isinstance(command, click.Group):
        for below, other in command.commands.items():
            yield from all_commands(other, f"{name} {below}")
