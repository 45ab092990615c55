"""A report as one HTML page that needs no server, network or other file.

`page.html`, `page.css` and the scripts in this folder are combined with the data. A policy in the page forbids all
requests and all scripts except its own.
"""

import base64
import zlib
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from satpipe.jobs.events.levels import LOW_SHARE
from satpipe.jobs.report_data import ReportData
from satpipe.jobs.report_data.collection import MAX_MOMENTS
from satpipe.jobs.report_data.contents import NOT_TAGGED, SCORE_STEPS
from satpipe.pipeline.storage import locate, write_text
from satpipe.reports.colours import ramp
from satpipe.reports.page import words
from satpipe.reports.page.parts import filled, json_text, sounds_text, terms

NAME = "report.html"
SCRIPTS = ("shared.js", "data.js", "spectrogram.js", "draw.js", "maps.js", "page.js")  # one module, in this order
_SECTION = """<section id="{id}" aria-labelledby="{id}-head" tabindex="-1">
<h2 id="{id}-head">{head}</h2>
<p class="about">{about}</p>
<div class="content"></div>
</section>"""


def write(found: ReportData, place: str | Path) -> Path:
    """Write the page to a file, path or URL; the same data give the same bytes.

    Raises:
        OutputError: The file cannot be written.
    """
    location = locate(place)
    write_text(location, page(found))
    return location


def page(found: ReportData) -> str:
    """Return the page."""
    sounds = {moment.excerpt.audio: None for moment in found.moments if moment.excerpt.audio}
    tables = (words.problems(found), words.warnings(found))
    sections = [
        ("labels", "Labels", words.LABELS),
        ("when", "When", words.when(found)),
        ("moments", "Listen", words.listen(found)),
        ("recordings", "Recordings", words.recordings(found)),
    ]
    return filled(
        "page.html",
        ("page.css",),
        SCRIPTS,
        title=escape(words.title(found)),
        lead=escape(words.lead(found)),
        zone=escape(words.zone(found)),
        figures=terms(words.figures(found)),
        notes="\n".join(f'<p class="note" role="note">{escape(note)}</p>' for note in found.notes),
        sections="\n".join(_SECTION.format(id=id, head=head, about=escape(about)) for id, head, about in sections),
        problems="\n".join(table.html() for table in tables if table),
        made=terms(words.made(found)),
        about=json_text(_about(found, list(sounds))),
        numbers=base64.b64encode(zlib.compress(_numbers(found), 9)).decode(),
        sounds=sounds_text(sounds),
    )


def _numbers(found: ReportData) -> bytes:
    """Return the large arrays as bytes, in the order in which `data.js` reads them."""
    scores = (detail.scores.tobytes() for detail in found.details)
    return found.chunks.astype("<u4").tobytes() + found.shares.tobytes() + b"".join(scores)


def _about(found: ReportData, sounds: list[bytes | None]) -> dict[str, Any]:
    """Return all other data."""
    return {
        "threshold": found.threshold,
        "levels": found.levels,
        "level": found.levels.index(found.threshold),
        "chunkSeconds": found.model["chunk_s"],
        "seconds": round(found.duration_s, 3),
        "scoreSteps": SCORE_STEPS,
        "notTagged": NOT_TAGGED,
        "lowShare": LOW_SHARE,
        "momentsEach": MAX_MOMENTS,
        "colours": {"light": ramp(), "dark": ramp(dark=True)},
        "labels": [
            {
                "name": total.name,
                "mid": total.target.mid,
                "group": -1 if total.group is None else total.group,
                "seconds": [round(length_s, 2) for length_s in total.duration_s],
                "peak": round(total.peak, 4),
            }
            for total in found.labels
        ],
        "maps": len(found.shares),
        "grid": {
            "kind": found.grid.kind,
            "rows": found.grid.rows,
            "columns": found.grid.columns,
            "grouped": found.grid.grouped,
            "minutes": found.grid.minutes,
        },
        "recordings": [
            {
                "name": detail.recording,
                "status": detail.status,
                "duration": detail.duration_s,
                "time": _iso(detail.time),
                "labels": detail.labels,
                "parts": detail.scores.shape[1],
            }
            for detail in found.details
        ],
        "moments": [
            {
                "kind": moment.kind,
                "label": moment.label,
                "rank": moment.rank,
                "recording": moment.recording,
                "start": moment.start_s,
                "score": round(moment.score, 4),
                "time": _iso(moment.time),
                "sound": sounds.index(moment.excerpt.audio) if moment.excerpt.audio else -1,
                "silent": moment.excerpt.silent,
            }
            for moment in found.moments
        ],
    }


def _iso(time: np.datetime64) -> str:
    return "" if np.isnat(time) else str(time.astype("datetime64[s]"))
