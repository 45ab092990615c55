"""`satpipe clips` cuts events from recordings, so that someone can listen and judge whether the classes are right.

    audio/bird_001_0.93.wav ...   the clips: the rate of the recording, one channel or the mean of all, as tagged
    sheet.csv                     a row for each clip, with a column `correct` to fill in, see `jobs.ground_truth.sheet`
    review.html                   a page on which to listen, look and answer

Clips are WAV files, which every program opens. They have the decoded samples; those of lossless recordings are exact.
"""

from satpipe.jobs.clips.job import SHEET, Cut, cut_clips
from satpipe.jobs.ground_truth.sheet import sheet_text
from satpipe.jobs.options.results import ClipsOptions
from satpipe.pipeline.storage import write_text
from satpipe.sat.printable import counted

__all__ = ["SHEET", "ClipsOptions", "Cut", "cut_clips", "problems", "sheet_rows", "text", "write_sheet"]
SHOWN = 10  # classes and recordings named in the closing lines


def write_sheet(cut: Cut) -> None:
    """Write the sheet next to the clips.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text(cut.folder / SHEET, sheet_text(sheet_rows(cut)))


def sheet_rows(cut: Cut) -> list[list[object]]:
    """Return the rows of the sheet; None is an empty cell."""
    rows = zip(*(cut.rows[name].tolist() for name in cut.rows), strict=True)
    return [[None if value is None or value != value else value for value in row] for row in rows]


def text(cut: Cut) -> list[str]:
    """Return the closing lines of the command."""
    lines = [f"note: {note}" for note in cut.notes]
    counts = cut.rows["label"].value_counts()
    kind = {"top": "highest scores", "stratified": "at random from all scores"}[cut.sample]
    lines.append(f"{counted(len(cut.rows), 'clip')}, {kind}: {cut.folder}")
    some = [(str(label), count) for label, count in counts.head(SHOWN).items()]
    named = [f"{label} ({count:,} of {cut.of[label]:,})" for label, count in some]
    more = f", and {len(counts) - SHOWN} more classes" if len(counts) > SHOWN else ""
    lines.append(f"classes: {', '.join(named)}{more}")
    return lines


def problems(cut: Cut) -> list[str]:
    """Return a line for each recording of which clips could not be cut, if any."""
    if not cut.failed:
        return []
    lost = f"{counted(cut.lost, 'clip')} of {counted(len(cut.failed), 'recording')}"
    lines = [f"could not be cut and not in the sheet: {lost}"]
    lines += [f"  {name}: {reason}" for name, reason in list(cut.failed.items())[:SHOWN]]
    lines += [f"  and {len(cut.failed) - SHOWN:,} more"] if len(cut.failed) > SHOWN else []
    return [
        *lines,
        "If recordings have moved, name their folder with --moved-to, and a new folder for the clips with -o",
    ]
