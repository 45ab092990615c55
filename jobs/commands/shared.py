"""Click options from options dataclasses, and other code that several commands share."""

from collections.abc import Callable, Iterable
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from satpipe.pipeline.option import Declared, declared, default_out
from satpipe.sat.printable import printable_lines

SOME_FAILED = 3
"""Exit code of a command that finished although some recordings could not be processed."""
_logs_json = False
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any])


def named_out() -> str:
    """Return the output folder to read if none is named, and print its name."""
    out = default_out()
    log(f"OUT: {out}")
    return out


OUT = click.argument(
    "out", required=False, metavar="[OUT]", callback=lambda _context, _parameter, out: out or named_out()
)


def options(of: type, *only: str) -> Callable[[Command], Command]:
    """Give a command the options of a dataclass.

    Args:
        of: The dataclass; its fields with an `Option` are used.
        only: Names of the fields; by default all.
    """

    def add(command: Command) -> Command:
        for each in reversed(declared(of)):
            if not only or each.name in only:
                command = _option(each)(command)
        return command

    return add


def _option(each: Declared) -> Callable[[Command], Command]:
    text, flags, default = each.option.help, each.flags, each.default
    if each.kinds == (bool,):
        if default:
            flags = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}",)
        return click.option(each.name, *flags, is_flag=True, default=default, show_default=default, help=text)
    settings: dict[str, Any] = {"metavar": each.option.metavar, "required": default is MISSING}
    if each.option.variable:
        settings |= {"envvar": each.option.variable, "show_envvar": True}
    if each.option.bare:
        settings |= {"is_flag": False, "flag_value": each.option.bare}
    item = _item(each)
    if item:
        settings |= {"multiple": True, "type": _Pair() if get_origin(item) is tuple else str}
        settings |= {"callback": lambda context, parameter, values: values or default}
        text = f"{text} Repeatable."
    elif default is not MISSING:
        settings |= {"default": default, "show_default": default is not None}
    return click.option(each.name, *flags, help=text, **({"type": _type(each)} if not item else {}), **settings)


def _item(each: Declared) -> Any:
    """Return the type of an option's values if it can be repeated, else None."""
    for kind in each.kinds:
        if get_origin(kind) in (tuple, Iterable) and (Ellipsis in get_args(kind) or get_origin(kind) is Iterable):
            return get_args(kind)[0]
    return None


def _type(each: Declared) -> Any:
    kind, option = each.kinds[0] if len(each.kinds) == 1 else str, each.option
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is tuple:
        return get_args(kind)
    if kind in (int, float) and (option.minimum, option.maximum) != (None, None):
        limited: Any = click.IntRange if kind is int else click.FloatRange
        return limited(option.minimum, option.maximum, option.above, option.below)
    if kind is Path:
        return FOLDER if option.metavar == "DIR" else FILE
    return kind


class _Pair(click.ParamType[tuple[str, str]]):
    """Text such as COLUMN=VALUE, as a pair."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[str, str]:
        column, equals, wanted = value.partition("=")
        if not equals:
            self.fail(f"must be COLUMN=VALUE, not {value}", param, context)
        return column, wanted


def from_file(config: Path | None, *of: type) -> dict[str, Any]:
    """Return the options that the file of `--config` gives and the command line does not.

    Args:
        config: The file; None: there is none.
        of: Dataclasses of the options.
    """
    if config is None:
        return {}
    from satpipe.jobs.options.config_file import read_config  # pydantic takes long to import
    from satpipe.sat.errors import ConfigError

    context = click.get_current_context()
    try:
        values = read_config(config, *of)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    on_command_line = click.core.ParameterSource.COMMANDLINE
    return {name: value for name, value in values.items() if context.get_parameter_source(name) != on_command_line}


def with_lists(given: dict[str, Any]) -> dict[str, Any]:
    """Split the labels and groups of a selection at commas."""
    from satpipe.pipeline.tables.targets import read_groups
    from satpipe.sat.groups import is_group
    from satpipe.sat.labels import separated

    own = read_groups(given["groups"]) if given.get("groups") else {}
    names: dict[str, Callable[[str], object]] = {"labels": lambda _: False, "group": lambda text: is_group(text, own)}
    lists = {name: separated(given[name] or (), known) or None for name, known in names.items() if name in given}
    return given | lists


def progress(what: str) -> Callable[[int, int], None]:
    """Return a function that prints the number of finished items."""
    return lambda done, total: log(f"{done} of {total} {what}")


def log(*lines: object, level: str = "info") -> None:
    """Print lines about the progress of a command; see `say`. `level` is for JSON."""
    if _logs_json:
        from satpipe.jobs.tag.json_lines import json_line

        lines = tuple(json_line(level, "message", str(line)) for line in lines)
    click.echo(printable_lines(lines), err=True)


def log_as_json(wanted: bool) -> None:
    """Let `log` print each line as JSON, or as it is."""
    global _logs_json
    _logs_json = wanted


def say(*lines: object) -> None:
    """Print lines of a result; names in them can neither start a new line nor control the terminal."""
    click.echo(printable_lines(lines))
