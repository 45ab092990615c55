"""Commands that tag recordings and live audio."""

import json
from pathlib import Path
from typing import Any

import click
from satpipe.jobs.commands.shared import FILE, OUT, SOME_FAILED, from_file, log, log_as_json, options, say
from satpipe.jobs.options.tag import CommandOptions, StatusOptions, StreamOptions, TagOptions

group = click.Group("Tag")


@group.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@options(TagOptions)
@click.option(
    "--config",
    type=FILE,
    metavar="YAML",
    help="File with any of these options, and inputs; the command line overrides it.",
)
@options(CommandOptions)
def tag(*, config: Path | None, **given: Any) -> int:
    """Tag recordings: files, folders or glob patterns.

    Folders are searched recursively. The same command continues a run that was stopped. Exit code 0: all recordings
    are tagged; 3: finished, but some recordings are not tagged from start to end (see the recordings table); 1: not
    finished.
    """
    given |= from_file(config, TagOptions, CommandOptions)
    if not given["inputs"]:
        raise click.UsageError("Missing argument 'INPUT...'.")
    dry_run, quiet = given.pop("dry_run"), given.pop("quiet")
    options = TagOptions(**given)
    as_json = options.log_format == "json"
    log_as_json(as_json)
    if not dry_run:
        from satpipe.jobs.tag.ahead import start_ray

        options = start_ray(options)

    from satpipe.jobs.tag import job, messages, progress
    from satpipe.jobs.tag.plan import plan as make_plan

    plan = make_plan(options)
    if not quiet:
        say(*messages.plan(plan, options.out, prune=options.prune))
    if dry_run:
        return 0
    with progress.shown(quiet=quiet or as_json) as report:
        summary = job.run(options, plan, report, (lambda note: None) if quiet else log)
    if not quiet:
        say(*messages.summary(summary, options.out))
    return 0 if summary.complete else SOME_FAILED


@group.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@options(StreamOptions)
def stream(**given: Any) -> int:
    """Tag live audio: print one line of JSON per chunk.

    SOURCE is - for standard input (the default), device:NAME, the URL of an RTSP or HTTP stream, or a WAV file that is
    still being written. Several sources share the model. Ctrl-C ends it. Exit code 3: a source broke off.
    """
    from satpipe.jobs import stream

    return 0 if stream.stream(StreamOptions(**given)) else SOME_FAILED


@group.command()
@OUT
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def compact(*, out: str, quiet: bool) -> int:
    """Put the small files of many runs together.

    The rows of OUT stay the same, in files of about 128 MB at most, each with recordings of one month. If the command
    is stopped, run it again. It can follow every `satpipe tag`: files that are large enough are left alone.
    """
    from satpipe.pipeline.tables.compact import compact

    done = compact(out, report=lambda line: None if quiet else log(line))
    if not quiet:
        say(f"{out}: files of each table: {done.before:,} before, {done.after:,} now")
    return 0


@group.command()
@OUT
@options(StatusOptions)
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON, for programs.")
@click.option(
    "--problems", is_flag=True, help="List all recordings with a problem or a warning, not only the first ones."
)
@click.option(
    "--check", is_flag=True, help="Read all tables instead, and list what is damaged. Exit code 3: something is."
)
def status(*, out: str, as_json: bool, problems: bool, check: bool, **given: Any) -> int:
    """Show the progress and the problems of a run.

    OUT is the output folder of a `satpipe tag` that is running, here or on another machine, or has ended. Exit code 0:
    the last run is running or has finished; 3: the same, but some recordings are not tagged; 4: older than --max-age;
    1: the last run has not finished, or the tables cannot be read.
    """
    from satpipe.jobs.tag import messages, status

    limits = StatusOptions(**given)
    max_age_s = limits.max_age_s
    if check:
        if as_json or max_age_s is not None:
            raise click.UsageError("--check is neither for --json nor for --max-age")
        damage = status.check(out)
        say(*messages.check(damage, out))
        return SOME_FAILED if damage else 0
    found = status.status(out, every_problem=problems)
    if as_json:
        say(*json.dumps(found.as_json(out, max_age_s), indent=2).split("\n"))
    else:
        say(*messages.status(found, out))
        if found.code(max_age_s) == status.OLD:
            say(f"older than --max-age {limits.max_age}")
    return found.code(max_age_s)
