"""Moments to listen to: short excerpts of the recordings as MP3, which browsers play."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter, itemgetter

from satpipe.jobs.report_data.moments import Excerpt, Moment
from satpipe.pipeline.recordings.for_browsers import audible, mp3
from satpipe.pipeline.tables.open_folder import Tables, side_by_side
from satpipe.pipeline.tables.source_files import SourceFiles
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

MARGIN_S = 1.5  # before and after the chunk
MAX_LENGTH_S = 12.0
MAX_BYTES = 4_000_000  # of all excerpts
_Place = tuple[str, float, float]  # recording, start and end of a chunk in seconds


def with_sound(tables: Tables, moments: Sequence[Moment]) -> list[Moment]:
    """Return moments with their sound, or with the reason why there is none.

    The total size is at most `MAX_BYTES`; the first moments of each label have priority.
    """
    ordered = sorted(moments, key=attrgetter("rank", "kind", "label"))
    places = list(dict.fromkeys(map(_place, ordered)))
    files = SourceFiles(tables, (recording for recording, *_ in places))
    by_recording = [list(some) for _, some in groupby(sorted(places), key=itemgetter(0))]
    read = side_by_side(lambda some: [(place, _read(files, *place)) for place in some], by_recording)
    found = {place: sound for some in read for place, sound in some}
    size = 0
    for place in places:
        size += len(found[place].audio or b"")
        if found[place].audio and size > MAX_BYTES:
            found[place] = Excerpt(silent=f"left out, since the page already has {MAX_BYTES / 1e6:.0f} MB of sound")
    return [replace(moment, excerpt=found[_place(moment)]) for moment in moments]


def _place(moment: Moment) -> _Place:
    return moment.recording, moment.start_s, moment.end_s


def _read(files: SourceFiles, recording: str, start_s: float, end_s: float) -> Excerpt:
    """Return the sound of a chunk with a margin."""
    begin_s = max(0.0, start_s - MARGIN_S)
    try:
        sound = files.read(recording, begin_s, min(begin_s + MAX_LENGTH_S, end_s + MARGIN_S), SAMPLE_RATE_HZ)
        return Excerpt(mp3(audible(sound.samples)), sound.start_s)
    except AudioError as error:
        return Excerpt(silent=str(error))
