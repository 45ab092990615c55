"""Cut clips from recordings."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from satpipe.pipeline.recordings.for_browsers import CLEAR, audible, mp3
from satpipe.pipeline.recordings.libsndfile import SndFile
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.storage import output_file
from satpipe.pipeline.tables.open_folder import side_by_side
from satpipe.pipeline.tables.source_files import Sound, SourceFiles
from satpipe.sat.errors import AudioError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

MIN_SAMPLES = SAMPLE_RATE_HZ // 100  # of the sound on the page: a stretch may be a point in time
_STEPS_16 = 2.0**15  # of a sample of 16 bits


@dataclass(frozen=True)
class Window:
    """Content of a clip, in seconds of the recording: a stretch, and the padding around it."""

    name: str
    recording: str
    start_s: float
    end_s: float
    pad_s: float


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip that was cut."""

    start_s: float
    """Start of the clip in the recording."""
    length_s: float
    sound: bytes
    """As MP3, for the page."""


def middle(start_s: float, end_s: float, longest_s: float) -> tuple[float, float]:
    """Return a stretch, or its middle if it is longer than this."""
    if end_s - start_s <= longest_s:
        return start_s, end_s
    centre_s = (start_s + end_s) / 2
    return centre_s - longest_s / 2, centre_s + longest_s / 2


def cut(
    files: SourceFiles, windows: Sequence[Window], folder: Any, progress: Callable[[int, int], None]
) -> tuple[dict[str, Clip], dict[str, str]]:
    """Cut clips and write them to a folder as WAV, each whole or not at all.

    Args:
        files: The files of the recordings.
        windows: What to cut.
        folder: Location of the files, path or `UPath`.
        progress: Called with the number of clips that are done, and of all.

    Returns:
        The clips by name, and the reason for each recording of which a clip could not be cut.

    Raises:
        OutputError: A file cannot be written.
    """
    by_recording = defaultdict(list)
    for each in sorted(windows, key=lambda each: each.start_s):
        by_recording[each.recording].append(each)
    found: dict[str, Clip] = {}
    failed: dict[str, str] = {}

    def cut_some(some: list[Window]) -> tuple[str, dict[str, Clip], str]:
        clips, reason = {}, ""
        kept_open: dict[str, SndFile] = {}
        try:
            for each in some:
                try:
                    sound = _read(files, each, kept_open)
                except AudioError as error:
                    reason = str(error)
                    continue
                write_wav(folder / f"{each.name}.wav", sound)
                clips[each.name] = Clip(sound.start_s, len(sound.samples) / sound.rate_hz, _for_page(sound))
        finally:
            for file in kept_open.values():
                file.close()
        return some[0].recording, clips, reason

    # A long recording is not left to one thread.
    parts = [some[at : at + 8] for some in by_recording.values() for at in range(0, len(some), 8)]
    done = 0
    for some, (recording, clips, reason) in zip(parts, side_by_side(cut_some, parts), strict=True):
        found |= clips
        if reason:
            failed.setdefault(recording, reason)
        done += len(some)
        progress(done, len(windows))
    return found, failed


def _read(files: SourceFiles, window: Window, kept_open: dict[str, SndFile]) -> Sound:
    if len(window.recording.splitlines()) > 1:
        raise AudioError("its name has line breaks, which a sheet cannot hold")
    begin_s = max(0.0, window.start_s - window.pad_s)
    return files.read(window.recording, begin_s, window.end_s + window.pad_s, kept_open=kept_open)


def write_wav(place: Path, sound: Sound) -> None:
    """Write sound with 16 bits if they hold it exactly, else with 24.

    Raises:
        OutputError: The file cannot be written.
    """
    steps = sound.samples * _STEPS_16
    subtype = "PCM_16" if np.array_equal(steps, np.rint(steps)) else "PCM_24"
    with output_file(place) as path:
        soundfile.write(path, sound.samples, sound.rate_hz, format="WAV", subtype=subtype)


def _for_page(sound: Sound) -> bytes:
    samples: Samples = sound.samples
    if sound.rate_hz != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, sound.rate_hz, SAMPLE_RATE_HZ)
    samples = np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))
    return mp3(audible(samples), CLEAR)
