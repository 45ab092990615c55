"""The inputs of `satpipe synth`: clips that can become events, and backgrounds."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from satpipe.jobs.options.measure import SynthOptions
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.recordings.recording import AudioInfo
from satpipe.pipeline.storage import is_remote
from satpipe.sat.errors import AudioError, ConfigError, LabelError
from satpipe.sat.labels import Label, find
from satpipe.sat.model.config import SAMPLE_RATE_HZ

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
AUDIBLE_DB = -40  # relative to the loudest frame
SILENCE_DB = -80  # dBFS; a clip without a louder frame is silent
MAX_EVENT_SAMPLES = 30 * SAMPLE_RATE_HZ  # maximum length of an event, and of the background that is read ahead
CROSS_FADE_SAMPLES = SAMPLE_RATE_HZ // 2
MIN_BACKGROUND_SAMPLES = 2 * CROSS_FADE_SAMPLES
BACKGROUND_PEAK = 0.5
EXAMPLES = 5  # number of unusable sources that a message names
_FOLDER_OF_MID = re.compile(r"_?([mgt])[_/](\w+)")


@dataclass(frozen=True)
class Clip:
    """A sound that can become an event."""

    source: Source
    info: AudioInfo
    label: Label
    start: int
    """First audible sample."""
    stop: int
    """The sample after the last audible one, at most MAX_EVENT_SAMPLES later."""


@dataclass(frozen=True)
class Background:
    """A recording to put events over."""

    source: Source
    info: AudioInfo
    samples: int
    """Decoded length."""
    gain: float
    """Factor that brings the recording to its level."""


_Request = tuple[
    Label, tuple[float, float] | None
]  # a clip in a file: label; onset, offset in seconds, None: all of it


def find_clips(options: SynthOptions, pool: ThreadPoolExecutor, skipped: list[str]) -> list[list[Clip]]:
    """Return the clips of each label, in the order of mids; add unusable sources to `skipped`."""
    given = options.foreground
    folder = is_remote(given) or Path(given).is_dir()
    requests = _requests_of_folder(given, skipped) if folder else _requests_of_table(Path(given))
    by_mid = defaultdict(list)
    for clips, problems in pool.map(_clips, requests, requests.values()):
        skipped += problems
        for clip in clips:
            by_mid[clip.label.mid].append(clip)
    if not by_mid:
        raise ConfigError(f"no clip of {given} can be used", *skipped[:EXAMPLES])
    return [by_mid[mid] for mid in sorted(by_mid)]


def _requests_of_folder(folder: str, skipped: list[str]) -> dict[Source, list[_Request]]:
    """Return the files in sub-folders that are named after labels."""
    search = Search((folder,))
    requests: dict[Source, list[_Request]] = {}
    for source in search:
        if "/" in source.recording:
            requests[source] = [(_label_of_folder(source.recording, folder), None)]
        else:
            skipped.append(f"{source.recording}: not in a sub-folder that is named after a label")
    skipped += search.problems
    return requests


def _label_of_folder(recording: str, folder: str) -> Label:
    """Return the label named by the first sub-folder: `Bow-wow`, `Dog_bark`, `m_0bt9lr`, `m/0bt9lr` or `74`."""
    first, second = recording.split("/")[:2]
    mid = _FOLDER_OF_MID.fullmatch(first) or _FOLDER_OF_MID.fullmatch(f"{first}/{second}")
    try:
        return find(f"/{mid[1]}/{mid[2]}" if mid else first.replace("_", " "))
    except LabelError as error:
        raise LabelError(f"sub-folder {first} of {folder}: {error}") from error


def _requests_of_table(path: Path) -> dict[Source, list[_Request]]:
    """Return the files in a table with the columns path and label and, optionally, onset_s and offset_s."""
    requests = defaultdict(list)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            rows = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise ConfigError(
                    f"{path} must have a header with the columns path and label, and optionally onset_s and offset_s"
                )
            for row in rows:
                source, request = _request_of_row(row, path, f"line {rows.line_num} of {path}")
                requests[source].append(request)
    except FileNotFoundError:
        raise ConfigError(f"{path} not found") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error
    return requests


def _request_of_row(row: dict[str, str], table: Path, where: str) -> tuple[Source, _Request]:
    name, times, span_s = row["path"], (row.get("onset_s"), row.get("offset_s")), None
    if not name or not row["label"]:
        raise ConfigError(f"{where}: path or label is missing")
    try:
        label = find(row["label"])
        if any(times):
            onset_s, offset_s = span_s = (float(times[0] or ""), float(times[1] or ""))
            if not 0 <= onset_s < offset_s < math.inf:
                raise ValueError
    except LabelError as error:
        raise LabelError(f"{where}: {error}") from error
    except ValueError:
        raise ConfigError(f"{where}: onset_s {times[0]} must be at least 0 and below offset_s {times[1]}") from None
    path = table.absolute().parent / name
    return Source(name, str(path), path.stat().st_size if path.exists() else 0, 0), (label, span_s)


@dataclass(frozen=True, eq=False)
class _Levels:
    """Levels of a file: power of each 10 ms frame [n], largest absolute sample, number of samples."""

    info: AudioInfo
    powers: npt.NDArray[np.float64]
    peak: float
    samples: int


def _measure(source: Source) -> _Levels:
    info = probe(source.path, source.size_bytes)
    powers, peak, samples, rest = [np.empty(0)], 0.0, 0, np.empty(0, np.float32)
    for block in Reader(source.path, info).blocks():
        samples += len(block)
        peak = max(peak, float(np.abs(block).max(initial=0)))
        joined = np.concatenate([rest, block])
        whole = len(joined) - len(joined) % FRAME_SAMPLES
        powers.append(np.square(joined[:whole], dtype=np.float64).reshape(-1, FRAME_SAMPLES).mean(1))
        rest = joined[whole:]
    if len(rest):
        powers.append(np.square(rest, dtype=np.float64).mean(keepdims=True))
    return _Levels(info, np.concatenate(powers), peak, samples)


def _clips(source: Source, requests: Sequence[_Request]) -> tuple[list[Clip], list[str]]:
    """Return the clips of a file, and the reasons why some requests yield none."""
    clips, problems = [], []
    try:
        levels = _measure(source)
    except AudioError as error:
        return [], [f"{source.recording}: {error}"]
    for label, span_s in requests:
        try:
            start, stop = _audible(levels, span_s)
            clips.append(Clip(source, levels.info, label, start, min(stop, start + MAX_EVENT_SAMPLES)))
        except AudioError as error:
            problems.append(f"{source.recording}: {error}")
    return clips, problems


def _audible(levels: _Levels, span_s: tuple[float, float] | None) -> tuple[int, int]:
    """Return the first audible sample of a clip and the sample after the last."""
    start, stop = (round(second * SAMPLE_RATE_HZ) for second in span_s) if span_s else (0, levels.samples)
    if stop > levels.samples + FRAME_SAMPLES:
        length_s, end_s = levels.samples / SAMPLE_RATE_HZ, stop / SAMPLE_RATE_HZ
        raise AudioError(f"its offset of {end_s:g} s is after its end at {length_s:g} s")
    stop = min(stop, levels.samples)
    powers = levels.powers[start // FRAME_SAMPLES : -(-stop // FRAME_SAMPLES)]
    loudest = _loudest(powers)
    if span_s:
        return start, stop
    loud = np.flatnonzero(powers >= loudest * 10 ** (AUDIBLE_DB / 10))
    return int(loud[0]) * FRAME_SAMPLES, min(int(loud[-1] + 1) * FRAME_SAMPLES, stop)


def _loudest(powers: npt.NDArray[np.float64]) -> float:
    """Return the power of the loudest frame.

    Raises:
        AudioError: All frames are silent.
    """
    loudest = float(powers.max(initial=0))
    if loudest < 10 ** (SILENCE_DB / 10):
        raise AudioError("contains only silence")
    return loudest


def find_backgrounds(options: SynthOptions, pool: ThreadPoolExecutor, skipped: list[str]) -> list[Background]:
    """Return the backgrounds, if any are wanted; add unusable sources to `skipped`."""
    if options.background is None:
        return []
    search = Search((options.background,))
    results = list(pool.map(lambda source: _background(source, options.background_db), list(search)))
    found = [each for each in results if isinstance(each, Background)]
    problems = [each for each in results if isinstance(each, str)] + search.problems
    if not found:
        raise ConfigError(f"no recording of {options.background} can be used", *problems[:EXAMPLES])
    skipped += problems
    return found


def _background(source: Source, level_db: float) -> Background | str:
    """Return a background, or the reason why it cannot be used."""
    try:
        levels = _measure(source)
        if levels.samples < MIN_BACKGROUND_SAMPLES:
            raise AudioError(f"shorter than {MIN_BACKGROUND_SAMPLES / SAMPLE_RATE_HZ:g} s")
        _loudest(levels.powers)
    except AudioError as error:
        return f"{source.recording}: {error}"
    gain = min(10 ** (level_db / 20) / math.sqrt(levels.powers.mean()), BACKGROUND_PEAK / levels.peak)
    return Background(source, levels.info, levels.samples, gain)
