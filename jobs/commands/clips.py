"""Commands for checking results by ear."""

import time
from typing import Any

import click
from satpipe.jobs.commands.shared import OUT, SOME_FAILED, log, options, say, with_lists
from satpipe.jobs.options.results import ClipsOptions, VerifyOptions
from satpipe.sat.printable import counted

LOG_S = 5.0  # between lines of progress


@click.command()
@OUT
@options(ClipsOptions)
def clips(*, out: str, **given: Any) -> int:
    """Cut events from recordings, to check them by ear.

    Writes each clip as WAV, a page on which you listen and answer whether the class is right, and a sheet for the
    answers, from which `satpipe verify` estimates the precision of each class.
    """
    from satpipe.jobs import clips
    from satpipe.reports import review

    last = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > LOG_S:
            last = time.monotonic()
            log(f"{done:,} of {counted(of, 'clip')}")

    cut, size_bytes = review.write(out, ClipsOptions(**with_lists(given)), progress)
    say(*clips.text(cut))
    say(f"to listen and answer: {cut.folder / review.NAME} ({size_bytes / 1e6:.1f} MB)")
    say(f"once the sheet has your answers: satpipe verify {cut.folder / clips.SHEET}")
    if cut.failed:
        log(*clips.problems(cut))
        return SOME_FAILED
    return 0


@click.command()
@click.argument("sheet")
@options(VerifyOptions)
@click.option(
    "-o",
    "--out",
    "target",
    metavar="FILE",
    help="JSON file of thresholds to write, for the option --threshold of other commands.",
)
def verify(*, sheet: str, target: str | None, **given: Any) -> int:
    """Estimate the precision of each class from judged clips.

    SHEET is the sheet of `satpipe clips` with answers in the column correct: yes, no or unsure. Each answer counts for
    the events that its clip stands for. Clips of the highest scores (--sample top) give no threshold.
    """
    from satpipe.jobs import verify
    from satpipe.reports.verification import verification_text

    chosen = VerifyOptions(**given)
    found = verify.verification(sheet, chosen)
    say(*verification_text(found))
    if target:
        say(verify.write_thresholds(found, chosen, target))
    return 0
