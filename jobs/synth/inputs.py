"""Where sounds come from: clips that can become events, backgrounds, and what is to be heard in them."""

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
from satpipe.jobs.synth.options import SynthOptions
from satpipe.pipeline.recordings.decode import AudioInfo, Reader, probe
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.storage import is_remote
from satpipe.sat.errors import AudioError, ConfigError, LabelError
from satpipe.sat.labels import Label, find
from satpipe.sat.model.config import SAMPLE_RATE_HZ

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
AUDIBLE_DB = -40  # relative to the loudest frame
SILENCE_DB = -80  # dBFS; a clip without a louder frame is silence
LONGEST_SAMPLES = 30 * SAMPLE_RATE_HZ  # of an event, so also what has to be known of a background ahead
CROSS_FADE_SAMPLES = SAMPLE_RATE_HZ // 2
LEAST_BACKGROUND_SAMPLES = 2 * CROSS_FADE_SAMPLES
BACKGROUND_PEAK = 0.5
EXAMPLES = 5  # sources left out that are named in a message
_FOLDER_OF_MID = re.compile(r"_?([mgt])[_/](\w+)")


@dataclass(frozen=True)
class Clip:
    """A sound that can become an event.

    Attributes:
        source: Its file.
        info: What the file's header says.
        label: Its class.
        start: First audible sample.
        stop: The one after the last, at most LONGEST_SAMPLES later.
    """

    source: Source
    info: AudioInfo
    label: Label
    start: int
    stop: int


@dataclass(frozen=True)
class Background:
    """A recording to put events over.

    Attributes:
        source: Its file.
        info: What the file's header says.
        samples: Its length, decoded.
        gain: What brings it to its level.
    """

    source: Source
    info: AudioInfo
    samples: int
    gain: float


@dataclass(frozen=True)
class _Wish:
    """What a file of the foreground is to be used for: a label, and from when to when, or None for all of it."""

    label: Label
    span_s: tuple[float, float] | None = None


def find_clips(options: SynthOptions, pool: ThreadPoolExecutor, skipped: list[str]) -> list[list[Clip]]:
    """Return the clips of each label, in the order of mids."""
    given = options.foreground
    folder = is_remote(given) or Path(given).is_dir()
    wishes = _wishes_of_folder(given, skipped) if folder else _wishes_of_table(Path(given))
    by_mid = defaultdict(list)
    for clips, problems in pool.map(_clips_of_file, wishes, wishes.values()):
        skipped += problems
        for clip in clips:
            by_mid[clip.label.mid].append(clip)
    if not by_mid:
        raise ConfigError("\n".join([f"no clip of {given} can be used", *skipped[:EXAMPLES]]))
    return [by_mid[mid] for mid in sorted(by_mid)]


def _wishes_of_folder(folder: str, skipped: list[str]) -> dict[Source, list[_Wish]]:
    """Return the files in sub-folders that are named after labels."""
    search, wishes = Search((folder,)), {}
    for source in search:
        if "/" in source.recording:
            wishes[source] = [_Wish(_label_of_folder(source.recording, folder))]
        else:
            skipped.append(f"{source.recording}: not in a sub-folder that is named after a label")
    skipped += search.problems
    return wishes


def _label_of_folder(recording: str, folder: str) -> Label:
    """Return what the first sub-folder is named after: `Bow-wow`, `Dog_bark`, `m_0bt9lr`, `m/0bt9lr` or `74`."""
    first, second = recording.split("/")[:2]
    mid = _FOLDER_OF_MID.fullmatch(first) or _FOLDER_OF_MID.fullmatch(f"{first}/{second}")
    try:
        return find(f"/{mid[1]}/{mid[2]}" if mid else first.replace("_", " "))
    except LabelError as error:
        raise LabelError(f"the sub-folder {first} of {folder}: {error}") from error


def _wishes_of_table(path: Path) -> dict[Source, list[_Wish]]:
    """Return the files that a table lists: path, label and, if it has them, onset_s and offset_s."""
    wishes = defaultdict(list)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            rows = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise ConfigError(f"{path} needs a header: path and label, and onset_s and offset_s if wanted")
            for row in rows:
                source, wish = _wish_of_row(row, path, rows.line_num)
                wishes[source].append(wish)
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error
    return wishes


def _wish_of_row(row: dict[str, str], table: Path, line: int) -> tuple[Source, _Wish]:
    where, name, times = f"line {line} of {table}", row["path"], (row.get("onset_s"), row.get("offset_s"))
    if not name or not row["label"]:
        raise ConfigError(f"{where}: path or label is missing")
    try:
        wish = _Wish(find(row["label"]))
        if any(times):
            onset_s, offset_s = (float(second or "") for second in times)
            if not 0 <= onset_s < offset_s < math.inf:
                raise ValueError
            wish = _Wish(wish.label, (onset_s, offset_s))
    except LabelError as error:
        raise LabelError(f"{where}: {error}") from error
    except ValueError:
        raise ConfigError(f"{where}: {times[0]} to {times[1]} is no onset and a later offset in seconds") from None
    path = table.absolute().parent / name
    return Source(name, str(path), path.stat().st_size if path.exists() else 0, 0), wish


@dataclass(frozen=True, eq=False)
class _Heard:
    """What is in a file: power of each 10 ms frame [n], largest absolute sample, number of samples."""

    info: AudioInfo
    powers: npt.NDArray[np.float64]
    peak: float
    samples: int


def _listen(source: Source) -> _Heard:
    info = probe(source.path, source.size_bytes)
    powers, peak, samples, rest = [], 0.0, 0, np.empty(0, np.float32)
    for block in Reader(source.path, info).blocks():
        samples += len(block)
        peak = max(peak, float(np.abs(block).max(initial=0)))
        joined = np.concatenate([rest, block])
        whole = len(joined) - len(joined) % FRAME_SAMPLES
        powers.append(np.square(joined[:whole], dtype=np.float64).reshape(-1, FRAME_SAMPLES).mean(1))
        rest = joined[whole:]
    if len(rest):
        powers.append(np.square(rest, dtype=np.float64).mean(keepdims=True))
    return _Heard(info, np.concatenate([np.empty(0), *powers]), peak, samples)


def _clips_of_file(source: Source, wishes: Sequence[_Wish]) -> tuple[list[Clip], list[str]]:
    """Return the clips of a file, and why some of those wanted are none."""
    try:
        heard = _listen(source)
    except AudioError as error:
        return [], [f"{source.recording}: {error}"]
    clips, problems = [], []
    for wish in wishes:
        try:
            start, stop = _audible(heard, wish.span_s)
        except AudioError as error:
            problems.append(f"{source.recording}: {error}")
            continue
        clips.append(Clip(source, heard.info, wish.label, start, min(stop, start + LONGEST_SAMPLES)))
    return clips, problems


def _audible(heard: _Heard, span_s: tuple[float, float] | None) -> tuple[int, int]:
    """Return from which sample to before which a clip sounds."""
    start, stop = (round(second * SAMPLE_RATE_HZ) for second in span_s) if span_s else (0, heard.samples)
    if stop > heard.samples + FRAME_SAMPLES:
        raise AudioError(f"{stop / SAMPLE_RATE_HZ:g} s lies behind its end, {heard.samples / SAMPLE_RATE_HZ:g} s")
    stop = min(stop, heard.samples)
    powers = heard.powers[start // FRAME_SAMPLES : -(-stop // FRAME_SAMPLES)]
    loudest = powers.max(initial=0)
    if loudest < 10 ** (SILENCE_DB / 10):
        raise AudioError("only silence")
    if span_s:
        return start, stop
    loud = np.flatnonzero(powers >= loudest * 10 ** (AUDIBLE_DB / 10))
    return int(loud[0]) * FRAME_SAMPLES, min(int(loud[-1] + 1) * FRAME_SAMPLES, stop)


def find_backgrounds(options: SynthOptions, pool: ThreadPoolExecutor, skipped: list[str]) -> list[Background]:
    """Return the backgrounds, none if none are wanted."""
    if options.background is None:
        return []
    search, found, problems = Search((options.background,)), [], []
    for looked_at in pool.map(lambda source: _background_of_file(source, options.background_db), list(search)):
        if isinstance(looked_at, str):
            problems.append(looked_at)
        else:
            found.append(looked_at)
    problems += search.problems
    if not found:
        raise ConfigError("\n".join([f"no recording of {options.background} can be used", *problems[:EXAMPLES]]))
    skipped += problems
    return found


def _background_of_file(source: Source, level_db: float) -> Background | str:
    """Return a background, or why it is none."""
    try:
        heard = _listen(source)
    except AudioError as error:
        return f"{source.recording}: {error}"
    if heard.samples < LEAST_BACKGROUND_SAMPLES:
        return f"{source.recording}: shorter than {LEAST_BACKGROUND_SAMPLES / SAMPLE_RATE_HZ:g} s"
    if heard.powers.max() < 10 ** (SILENCE_DB / 10):
        return f"{source.recording}: only silence"
    gain = min(10 ** (level_db / 20) / math.sqrt(heard.powers.mean()), BACKGROUND_PEAK / heard.peak)
    return Background(source, heard.info, heard.samples, gain)
