"""The text of `satpipe verify`."""

from collections.abc import Callable

from satpipe.jobs.ground_truth.sheet import TOP
from satpipe.jobs.verify import Verification, Verified
from satpipe.jobs.verify.precision import Estimate
from satpipe.jobs.verify.threshold import MIN_CLIPS
from satpipe.reports.tables import Table
from satpipe.sat.printable import counted


def verification_text(found: Verification) -> list[str]:
    """Return the lines of the command: a table in Markdown, and what limits its figures."""
    head = f"{100 * found.level:g} % interval"
    wanted = f"threshold for {found.precision:g}"
    columns = ("class", "yes", "no", "unsure", "events", "precision", head, wanted, "precision there", head)
    rows = tuple(_row(each) for each in found.classes)
    title = f"Precision of classes, {found.sheet}"
    return [*Table(title, columns, rows).markdown().split("\n"), *_notes(found)]


def _row(each: Verified) -> tuple[str, ...]:
    events, (precision, interval) = "" if each.found is None else f"{each.found.events:,.0f}", _estimate(each.found)
    if each.sample == TOP:
        events, interval = f"top {each.clips}", ""
    threshold = "" if each.threshold is None else f"{each.threshold:g}"
    return (
        *(each.label, f"{each.yes}", f"{each.no}", f"{each.unsure}", events),
        *(precision, interval),
        *(threshold, *_estimate(each.above)),
    )


def _estimate(found: Estimate | None) -> tuple[str, str]:
    return ("", "") if found is None else (f"{found.precision:.2f}", f"{found.low:.2f} to {found.high:.2f}")


def _notes(found: Verification) -> list[str]:
    """Return a line about each limit of the figures."""
    classes = found.classes
    lines = []
    if each := _names(classes, lambda one: one.sample == TOP):
        lines.append(
            f"{each}: only the highest scores were judged. The precision is that of these clips, not of all events, "
            "and sets no threshold: draw clips with --sample stratified"
        )
    if each := _names(classes, lambda one: bool(one.unsure)):
        lines.append(f"{each}: clips answered unsure do not count")
    if each := _names(classes, lambda one: bool(one.unanswered)):
        left = sum(one.unanswered for one in classes)
        lines.append(f"{each}: no answer yet for {counted(left, 'clip')}; the answered clips stand for the rest")
    if each := _names(classes, lambda one: one.sample != TOP and 0 < one.covered < 0.9999):
        lines.append(f"{each}: some ranges of scores have no answers; the figures do not cover them")
    if each := _names(classes, lambda one: one.found is not None and one.sample != TOP and one.threshold is None):
        lines.append(
            f"{each}: no threshold with at least {MIN_CLIPS} judged clips reaches a precision of {found.precision:g}"
        )
    if each := _names(classes, lambda one: one.lowest):
        lines.append(
            f"{each}: all scores in the sheet reach this precision; a threshold below that of the clips might, too"
        )
    return [f"note: {line}" for line in lines]


def _names(classes: tuple[Verified, ...], which: Callable[[Verified], bool]) -> str:
    chosen = [one.label for one in classes if which(one)]
    return ", ".join(chosen[:5]) + (f" and {len(chosen) - 5} more" if len(chosen) > 5 else "")
