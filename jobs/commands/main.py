"""The command line. Each group of commands has a module here; other modules of `jobs` do the work."""

import io
import sys

import click
from satpipe.jobs.commands import measure, models, results, tag, train
from satpipe.jobs.commands.shared import log

NOT_FINISHED = 1
SECTIONS = (tag.group, results.group, train.group, measure.group, models.group)


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


def main() -> None:
    """Run a command; print errors that are addressed to the user, without a traceback."""
    from satpipe.sat.errors import SatpipeError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have characters that the terminal cannot show
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        log(*text.getvalue().rstrip("\n").split("\n"))
        code = error.exit_code
    except SatpipeError as error:
        log(*f"{type(error).__name__}: {error}".split("\n"))
        code = NOT_FINISHED
    except (click.Abort, KeyboardInterrupt):
        log("stopped; run the same command again to continue")
        code = NOT_FINISHED
    sys.exit(code)
