"""The events of one recording, in the formats of programs that display them with the audio.

    audacity   label track: https://manual.audacityteam.org/man/importing_and_exporting_labels.html
    raven      selection table: https://www.ravensoundsoftware.com (Raven Pro User's Manual, selection tables)
    textgrid   Praat, which ELAN imports too: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
    jams       https://jams.readthedocs.io, namespace tag_audioset

Text is UTF-8, seconds count from the recording's start.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from satpipe.sat.model.config import SAMPLE_RATE_HZ

RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation",
    "Mid", "Peak Score", "Mean Score", "Local Time",
)  # fmt: skip
RAVEN_FILE_COLUMNS = ("Begin File", "Begin Path", "File Offset (s)")
"""Further columns of a table for several files; its times run through all of them."""
NO_EVENTS = "no events"  # name of a tier, since a TextGrid needs at least one
_JAMS_VERSION = "0.3.5"


class Event(NamedTuple):
    """A sound event."""

    start_s: float
    end_s: float
    mid: str
    label: str
    peak_score: float
    mean_score: float
    time_local: str | None = None


class InFile(NamedTuple):
    """The file of an event among several files, one after the other."""

    path: str
    start_s: float
    """Its start in the recording; 0 unless several files were joined."""
    begin_s: float
    """Its start in the sequence of files."""


@dataclass(frozen=True)
class Found:
    """A recording and its events."""

    recording: str
    duration_s: float
    rate_hz: int
    time: str | None
    """Start of the recording, ISO 8601 in UTC; None if unknown."""
    about: dict[str, Any]
    """Model and options that the events depend on: keys threshold, low, min_s, merge_gap_s and others."""
    events: list[Event]
    """Sorted by start; events of one class do not touch."""


def audacity(found: Found) -> str:
    """Render a label track: start, end, and the label with its highest score, separated by tabs."""
    return "".join(
        f"{event.start_s:.6f}\t{event.end_s:.6f}\t{event.label} {event.peak_score:.2f}\n" for event in found.events
    )


def raven(found: Found) -> str:
    """Render a selection table; selections cover the frequencies that the model receives."""
    lines = (raven_selection(found, number, event) for number, event in enumerate(found.events, 1))
    return "\n".join(["\t".join(RAVEN_COLUMNS), *lines]) + "\n"


def raven_selection(found: Found, number: int, event: Event, file: InFile | None = None) -> str:
    """Return a line of a selection table; with the file of the event, of a table for several files."""
    channel = re.search(r"#ch(\d+)$", found.recording)
    high_hz = min(found.rate_hz, SAMPLE_RATE_HZ) / 2
    shift_s = file.begin_s - file.start_s if file else 0.0
    cells = [
        str(number), "Spectrogram 1", channel[1] if channel else "1", f"{event.start_s + shift_s:.6f}",
        f"{event.end_s + shift_s:.6f}", "0.0", f"{high_hz:.1f}", event.label, event.mid, f"{event.peak_score:.4f}",
        f"{event.mean_score:.4f}", event.time_local or "",
    ]  # fmt: skip
    if file:
        path = re.sub(r"[\t\r\n]", " ", file.path)  # cells cannot be quoted
        cells += [path.rpartition("/")[2], path, f"{event.start_s - file.start_s:.6f}"]
    return "\t".join(cells)


def textgrid(found: Found) -> str:
    """Render a TextGrid in the long text format: a tier for each label, with empty intervals between its events."""
    end_s = max([found.duration_s, *(event.end_s for event in found.events)])
    tiers: dict[str, list[Event]] = {}
    for event in found.events:
        tiers.setdefault(event.label, []).append(event)
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end_s!r}",
        "tiers? <exists>", f"size = {max(1, len(tiers))}", "item []:",
    ]  # fmt: skip
    for number, (label, events) in enumerate(sorted(tiers.items()) or [(NO_EVENTS, [])], 1):
        intervals = _intervals(events, end_s)
        lines += [
            f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(label)}",
            "        xmin = 0", f"        xmax = {end_s!r}", f"        intervals: size = {len(intervals)}",
        ]  # fmt: skip
        for place, (start_s, stop_s, text) in enumerate(intervals, 1):
            lines += [
                f"        intervals [{place}]:", f"            xmin = {start_s!r}", f"            xmax = {stop_s!r}",
                f"            text = {_quoted(text)}",
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _intervals(events: Iterable[Event], end_s: float) -> list[tuple[float, float, str]]:
    """Return the events of a class and the gaps between them."""
    intervals, at = [], 0.0
    for event in events:
        if event.start_s > at:
            intervals.append((at, event.start_s, ""))
        intervals.append((event.start_s, event.end_s, event.label))
        at = event.end_s
    return [*intervals, (at, end_s, "")] if at < end_s else intervals


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def jams(found: Found) -> str:
    """Render a JAMS file: one annotation with a tag for each event, whose confidence is its highest score."""
    rules = (f"{key} {found.about[key]}" for key in ("threshold", "low", "min_s", "merge_gap_s"))
    annotation = {
        "namespace": "tag_audioset",
        "time": 0.0,
        "duration": found.duration_s,
        "annotation_metadata": {
            "annotation_tools": f"satpipe {found.about['satpipe']}",
            "annotation_rules": ", ".join(rules),
            "data_source": "program",
        },
        "data": [
            {
                "time": event.start_s,
                "duration": round(event.end_s - event.start_s, 6),
                "value": event.label,
                "confidence": round(event.peak_score, 4),
            }
            for event in found.events
        ],
        "sandbox": {"mean_scores": [round(event.mean_score, 4) for event in found.events], "made_by": found.about},
    }
    title = {"title": found.recording, "duration": found.duration_s, "jams_version": _JAMS_VERSION}
    content = {
        "file_metadata": {**title, "artist": "", "release": "", "identifiers": {}},
        "annotations": [annotation],
        "sandbox": {"recording": found.recording, "time": found.time},
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


RENDERERS: dict[str, tuple[Callable[[Found], str], str]] = {
    "audacity": (audacity, ".txt"),
    "raven": (raven, ".Table.1.selections.txt"),
    "textgrid": (textgrid, ".TextGrid"),
    "jams": (jams, ".jams"),
}
"""By name of the format: the function, and the suffix that follows the recording's name."""
