"""The command line. Each group of commands has a module here; other modules of `jobs` do the work."""

import atexit
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, ModuleType
from typing import NoReturn

import click
from satpipe.jobs.commands import activity, clips, measure, models, own_classes, results, search, tag, train
from satpipe.jobs.commands.shared import log, log_as_json

NOT_FINISHED = 1
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # as shells have it
for command in (activity.activity, clips.clips, clips.verify, search.search):
    results.group.add_command(command)
SECTIONS = (tag.group, results.group, own_classes.group, train.group, measure.group, models.group)


class Sections(click.Group):
    """A group whose help lists its commands in sections, each command with its whole summary."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help."""
        return [name for section in SECTIONS for name in section.commands]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        width = max(map(len, self.commands))
        for section in SECTIONS:
            with formatter.section(section.name or ""):
                rows = [
                    (name.ljust(width), command.get_short_help_str(limit=1000))
                    for name, command in section.commands.items()
                ]
                formatter.write_dl(rows)


@click.group(
    cls=Sections,
    commands={name: command for section in SECTIONS for name, command in section.commands.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="satpipe")
def cli() -> None:
    """Tag long audio recordings with Streaming Audio Transformers, into Parquet."""


def main() -> NoReturn:
    """Run the command in `sys.argv`, and end the program.

    The end leaves out that of the interpreter: until Python 3.14, a thread of Arrow's that lets go of a Python object
    then is ended by force, inside code that allows no exception, and aborts the program ("terminate called without an
    active exception", https://github.com/apache/arrow/issues/34314).
    """
    code = run()
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def run() -> int:
    """Run the command in `sys.argv`; print errors that are addressed to the user; return the exit code."""
    from satpipe.sat.errors import SatpipeError

    log_as_json(False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have characters that the terminal cannot show
    with _interrupted_by_sigterm() as terminated:
        try:
            code = cli.main(standalone_mode=False)
            if sys.stdout:
                sys.stdout.flush()
            return code or 0
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except click.ClickException as error:
            text = io.StringIO()
            error.show(text)
            log(*text.getvalue().rstrip("\n").split("\n"), level="error")
            return error.exit_code
        except SatpipeError as error:
            log(*f"{type(error).__name__}: {error}".split("\n"), level="error")
            return NOT_FINISHED
        except (click.Abort, KeyboardInterrupt):
            log("stopped; run the same command again to continue")
            return TERMINATED if terminated else INTERRUPTED
        except _storage().errors() as error:
            file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            log(f"{type(error).__name__}: {file}{_storage().described(error)}", level="error")
            return NOT_FINISHED


def _storage() -> ModuleType:
    from satpipe.pipeline import storage  # takes long to import

    return storage


@contextmanager
def _interrupted_by_sigterm() -> Iterator[list[int]]:
    """Let SIGTERM interrupt the command as Ctrl-C does; provide a list that is empty until then.

    A second SIGTERM ends the program at once.
    """
    received = []

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
