"""The page of `satpipe clips`, on which someone listens to clips and answers what can be heard; and `satpipe.clips`."""

import hashlib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from satpipe.jobs import clips as job
from satpipe.jobs.clips import ClipsOptions, Cut
from satpipe.jobs.ground_truth.sheet import COLUMNS, cells_of
from satpipe.pipeline.option import takes
from satpipe.pipeline.storage import write_text
from satpipe.reports.colours import ramp
from satpipe.reports.page.parts import filled, json_text, sounds_text, terms

NAME = "review.html"
SCRIPTS = ("shared.js", "spectrogram.js", "sheet.js", "review.js")  # one module, in this order


@takes(ClipsOptions)
def clips(out: str | Path, options: ClipsOptions) -> pd.DataFrame:
    """Cut clips of events from recordings, to judge how often a class is right, as `satpipe clips` does.

    >>> satpipe.clips("out", to="clips", labels="Bird", threshold=0.2, per_class=20)[["clip", "label", "score"]]
                          clip label    score
    0  audio/bird_001_0.83.wav  Bird  0.82666

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        options: Given as keyword arguments.

    Returns:
        The sheet with a row for each clip, and the columns `clip`, `recording`, `start_s` and `end_s` (of the event,
        without padding), `time_local`, `label`, `mid`, `score`, `correct` (empty), `stratum`, `probability` (of being
        drawn) and `model_sha256`. Clips that could not be cut are missing.

    Raises:
        OutputError: `out` is not an output folder or has no scores, a file is damaged or cannot be written, the folder
            of clips already has a sheet, no event was found, or no clip could be cut.
        ConfigError: An option is invalid, there would be too many clips, or `moved_to` does not exist.
        LabelError: A class or group is unknown.
        TruthError: Stretches or thresholds cannot be read.
    """
    return write(out, options)[0].rows


def write(
    out: str | Path, options: ClipsOptions, progress: Callable[[int, int], None] = lambda done, of: None
) -> tuple[Cut, int]:
    """Cut clips and write them, the page and the sheet; return them and the size of the page in bytes.

    Raises the errors of `clips`.
    """
    cut = job.cut_clips(out, options, progress)
    text = page(cut)
    write_text(cut.folder / NAME, text)
    job.write_sheet(cut)  # last: a folder with a sheet is complete
    return cut, len(text.encode())


def page(cut: Cut) -> str:
    """Return the page; the same clips give the same text."""
    rows = [cells_of(row) for row in job.sheet_rows(cut)]
    name = cut.out.rstrip("/").rpartition("/")[2] or cut.out
    labels = list(dict.fromkeys(cut.rows["label"]))
    some = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    return filled(
        "review.html",
        ("page.css", "review.css"),
        SCRIPTS,
        title=escape(f"Clips of {name}"),
        lead=escape(
            f"{len(rows):,} clip{'' if len(rows) == 1 else 's'} of {some}. Listen, look, and answer whether you hear "
            "the class between the dashed lines."
        ),
        made=terms(_made(cut)),
        about=json_text(_about(cut, rows)),
        sounds=sounds_text(clip.sound for clip in cut.clips),
    )


def _about(cut: Cut, rows: list[list[str]]) -> dict[str, Any]:
    stretches = zip(cut.clips, cut.rows["start_s"].tolist(), cut.rows["end_s"].tolist(), strict=True)
    return {
        "id": hashlib.sha256(repr(rows).encode()).hexdigest()[:16],
        "header": COLUMNS,
        "rows": rows,
        "order": _order(cut),
        "clips": [
            {"begin": round(clip.start_s, 4), "length": round(clip.length_s, 4), "from": start_s, "to": end_s}
            for clip, start_s, end_s in stretches
        ],
        "colours": {"light": ramp(), "dark": ramp(dark=True)},
    }


def _order(cut: Cut) -> list[int]:
    """Return the order of the clips: by class, otherwise at random.

    So neither the score nor a neighbour suggests an answer, and those answered first are a random part of all.
    """
    random = np.random.default_rng([cut.seed, 1])
    shuffled = random.permutation(len(cut.rows))
    labels = cut.rows["label"].to_numpy()[shuffled]
    return [int(n) for n in shuffled[np.argsort(labels, kind="stable")]]


def _made(cut: Cut) -> list[tuple[str, str]]:
    return [(term, value) for term, value in cut.made.items() if value]
