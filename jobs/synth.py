"""`satpipe synth`: sound scenes whose truth is known to the sample, from clips of single sounds over backgrounds.

    audio/scene_00000.wav ...   16 kHz mono, 16 bit
    strong.tsv                  filename, onset, offset (seconds), event_label (mid); one empty row for an empty scene
    weak.csv                    which classes are in each scene, in the form of AudioSet's segment lists
    events.tsv                  of each event also its name, source and signal-to-noise ratio, asked and reached
    synth.json                  the options, the sources used, what was left out

The rules, all times being integer samples at 16 kHz:

* A clip sounds from the first to the last 10 ms frame whose power is at most 40 dB below that of its loudest frame,
  unless a table says from when to when. That is what is mixed, and its place is the truth; of a longer sound, the
  first 30 s. Both ends are faded over 5 ms.
* The number of events is Poisson distributed; of each, the label is drawn first, then one of its clips, then the
  onset, all anew up to 20 times until it keeps 0.25 s from others of its class (crowded scenes favour short clips);
  what then does not fit is left out and counted. A scene's end may cut an event, but 0.25 s of it stay.
* A background shorter than the scene is repeated, its end cross-faded into its beginning over 0.5 s; a longer one is
  entered somewhere. It is brought to one level, or below, so that its peak stays under 0.5. White noise at -70 dBFS
  lies under it; without a background, white noise at its level takes its place. So nothing is ever digital silence.
* The level of an event follows from the power of what lies under it. Where k events meet, none may use more than 1/k
  of what the background leaves free under 0.99: so no scene clips, and none has to be scaled afterwards. An event that
  this makes quieter than asked is counted, and `events.tsv` has the ratio it reached.
* Scene k depends on the seed, k, the other options and the sources, not on the number of scenes or of workers.

Scenes are made in threads, not in Ray tasks: decoding, NumPy and encoding leave the interpreter free, all share the
decoded clips, and what takes seconds for an hour of sound needs no cluster that sees the clips.
"""

import csv
import json
import math
import os
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from threading import Event as Flag
from threading import Lock
from typing import IO

import numpy as np
import numpy.typing as npt
import soundfile
from filelock import FileLock, Timeout

from pipeline.decode import AudioInfo, Reader, Samples, probe
from pipeline.find import Search, Source
from pipeline.location import is_remote, written_whole
from sat.config import SAMPLE_RATE_HZ
from sat.errors import AudioError, ConfigError, LabelError, OutputError
from sat.labels import Label, find

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
AUDIBLE_DB = -40  # relative to the loudest frame
SILENCE_DB = -80  # dBFS; a clip without a louder frame is silence
LONGEST_SAMPLES = 30 * SAMPLE_RATE_HZ  # of an event, so also what has to be known of a background ahead
LEAST_SAMPLES = SAMPLE_RATE_HZ // 4  # of an event that the scene's end cuts
GAP_SAMPLES = SAMPLE_RATE_HZ // 4  # between events of a class: more than the usual collar of 200 ms
FADE_SAMPLES = SAMPLE_RATE_HZ // 200
CROSS_FADE_SAMPLES = SAMPLE_RATE_HZ // 2
LEAST_BACKGROUND_SAMPLES = 2 * CROSS_FADE_SAMPLES
LATEST_START_SAMPLES = 600 * SAMPLE_RATE_HZ  # in a background that can only be read from its beginning
FLOOR_DB = -70
BACKGROUND_PEAK = 0.5
SCENE_PEAK = 0.99
TRIES = 20
BLOCK_SAMPLES = 30 * SAMPLE_RATE_HZ
CACHE_BYTES = 64 * 2**20
CACHED_SAMPLES = 300 * SAMPLE_RATE_HZ  # 19 MB; a longer background is decoded each time it is used
MOST_WORKERS = 16  # unless more are asked for: what is left of Python between the arrays runs one at a time
LARGEST_WAV_BYTES = 2**32 - 2**16
MOST_SCENES = 100_000  # their names have 5 digits: with 11 characters they pass for the YouTube ids of AudioSet
TABLES = ("strong.tsv", "weak.csv", "events.tsv")
PROGRAM = "satpipe synth"
EXAMPLES = 5  # sources left out that are named in the summary
_FOLDER_OF_MID = re.compile(r"_?([mgt])[_/](\w+)")

Rng = np.random.Generator


@dataclass(frozen=True)
class SynthOptions:
    """Options of `satpipe synth`, as on its command line."""

    out: str | Path
    foreground: str
    background: str | None = None
    scenes: int = 100
    length_s: float = 10.0
    events_per_minute: float = 18.0
    snr_db: tuple[float, float] = (6.0, 20.0)
    background_db: float = -50.0
    max_polyphony: int | None = None
    seed: int = 0
    format: str = "wav"
    workers: int | None = None
    overwrite: bool = False

    @property
    def samples(self) -> int:
        """Length of a scene."""
        return round(self.length_s * SAMPLE_RATE_HZ)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.out)


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
class Event:
    """A clip at its place in a scene.

    Attributes:
        onset: First sample in the scene.
        offset: The one after the last.
        clip: What is heard.
        snr_db: Power of the event over that of the background during the event, as asked.
    """

    onset: int
    offset: int
    clip: Clip
    snr_db: float


@dataclass(frozen=True)
class Scene:
    """What became of a scene.

    Attributes:
        file: Name of its file.
        background: Name of its background, or "".
        events: In the order of their onsets.
        reached_db: Signal-to-noise ratio of each event.
        left_out: How many events found no room.
    """

    file: str
    background: str
    events: list[Event]
    reached_db: list[float]
    left_out: int


@dataclass
class Summary:
    """What a run has made.

    Attributes:
        duration_s: Length of all scenes together.
        scenes: How many.
        classes: Events of each class, by display name.
        foreground: Events from each file.
        background: Scenes over each file.
        quieter: Events below the signal-to-noise ratio asked, since they would have clipped.
        left_out: Events that found no room.
        skipped: Sources that could not be used, with the reason.
    """

    duration_s: float = 0.0
    scenes: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    foreground: Counter[str] = field(default_factory=Counter)
    background: Counter[str] = field(default_factory=Counter)
    quieter: int = 0
    left_out: int = 0
    skipped: list[str] = field(default_factory=list)

    def add(self, scene: Scene, length_s: float) -> None:
        """Count a scene."""
        self.duration_s += length_s
        self.scenes += 1
        self.left_out += scene.left_out
        self.classes.update(event.clip.label.name for event in scene.events)
        self.foreground.update(event.clip.source.recording for event in scene.events)
        self.background.update([scene.background] if scene.background else [])
        asked = [event.snr_db for event in scene.events]
        self.quieter += sum(reached < db - 0.01 for reached, db in zip(scene.reached_db, asked, strict=True))


def synth(options: SynthOptions) -> Summary:
    """Make scenes and their truth.

    Raises:
        ConfigError: Options that cannot work, or no clip that can be used.
        LabelError: A label of the foreground is not known; the message says where it stands.
        AudioError: A source has changed since it was looked at.
        OutputError: The folder cannot be written, or holds something else.
    """
    _check(options)
    summary = Summary()
    with ThreadPoolExecutor(options.workers or min(os.cpu_count() or 1, MOST_WORKERS)) as pool:
        clips = _clips(options, pool, summary.skipped)
        backgrounds = _backgrounds(options, pool, summary.skipped)
        try:
            with _claimed(options):
                _make(SceneMaker(options, clips, backgrounds), pool, options, summary)
        except (OSError, soundfile.LibsndfileError) as error:
            raise OutputError(
                f"{options.out} cannot be written: {getattr(error, 'strerror', None) or error}"
            ) from error
    return summary


def text(summary: Summary, out: str | Path) -> str:
    """Say what a run has made."""
    made = f"scenes: {summary.scenes:,}, together {timedelta(seconds=round(summary.duration_s))}"
    lines = [f"{out} holds {made}; events: {summary.classes.total():,}; classes: {len(summary.classes)}"]
    if summary.quieter:
        lines.append(f"  quieter than asked, so that nothing clips: {summary.quieter:,} events, see events.tsv")
    if summary.left_out:
        lines.append(f"  drawn, but left out since there was no room: {summary.left_out:,} events")
    if summary.skipped:
        lines.append(f"  could not be used: {len(summary.skipped):,} sources, all in synth.json:")
        lines += [f"    {problem}" for problem in summary.skipped[:EXAMPLES]]
        lines += ["    ..."] if len(summary.skipped) > EXAMPLES else []
    return "\n".join(lines)


def _check(options: SynthOptions) -> None:
    low_db, high_db = options.snr_db
    numbers = (options.length_s, options.events_per_minute, low_db, high_db, options.background_db)
    if not all(map(math.isfinite, numbers)):
        raise ConfigError("an option is infinite or not a number")
    if not 1 <= options.scenes <= MOST_SCENES:
        raise ConfigError(f"--scenes {options.scenes:,}: {MOST_SCENES:,} are the most, and 1 is the least")
    if low_db > high_db:
        raise ConfigError(f"--snr-db {low_db:g} {high_db:g}: the lower one comes first")
    if options.samples < LEAST_SAMPLES:
        least_s = LEAST_SAMPLES / SAMPLE_RATE_HZ
        raise ConfigError(f"--length-s {options.length_s:g} is too short for any event: {least_s:g} is the least")


# Sources


@dataclass(frozen=True)
class _Wish:
    """What a file of the foreground is to be used for: a label, and from when to when, or None for all of it."""

    label: Label
    span_s: tuple[float, float] | None = None


def _clips(options: SynthOptions, pool: ThreadPoolExecutor, skipped: list[str]) -> list[list[Clip]]:
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
        powers.append(np.array([_power(rest)]))
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


def _backgrounds(options: SynthOptions, pool: ThreadPoolExecutor, skipped: list[str]) -> list[Background]:
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


class _Library:
    """Parts of recordings, decoded; those used last are kept. Threads share it."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[str, int, int], Samples] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def part(self, sound: Clip | Background, start: int, stop: int) -> Samples:
        """Return the samples from `start` to before `stop`; not to be changed."""
        key = (sound.source.path, start, stop)
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                return self._parts[key]
        samples = _Stream(_decoded(sound, start)).take(stop - start).copy()  # or it would keep whole blocks
        with self._lock:
            if key not in self._parts:  # another thread may have been faster
                self._parts[key] = samples
                self._bytes += samples.nbytes
            while self._bytes > CACHE_BYTES:
                self._bytes -= self._parts.popitem(last=False)[1].nbytes
        return samples


class _Stream:
    """Blocks of any size, taken as so many samples at a time."""

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = iter(blocks)
        self._rest = np.empty(0, np.float32)

    def take(self, samples: int) -> Samples:
        """Return the next samples; not to be changed.

        Raises:
            AudioError: There are fewer.
        """
        parts, have = [self._rest], len(self._rest)
        while have < samples:
            try:
                parts.append(next(self._blocks))
            except StopIteration:
                raise AudioError("a source has changed since it was looked at") from None
            have += len(parts[-1])
        joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._rest = joined[samples:]
        return joined[:samples]


def _decoded(sound: Clip | Background, start: int) -> Iterator[Samples]:
    """Yield the samples of a recording from `start` on."""
    skip = 0 if sound.info.exact_seek else start
    try:
        for block in Reader(sound.source.path, sound.info, start=start - skip).blocks():
            yield block[skip:]
            skip = max(0, skip - len(block))
    except AudioError as error:
        raise AudioError(f"{sound.source.path}: {error}", error.status) from error


# Scenes


class SceneMaker:
    """Makes scenes of given sources, any of them, in any order, in any thread.

    Attributes:
        stop: Set to have scenes broken off.
    """

    def __init__(self, options: SynthOptions, clips: list[list[Clip]], backgrounds: list[Background]) -> None:
        """Take the sources.

        Args:
            options: What is wanted.
            clips: For each label, its clips.
            backgrounds: One is drawn for each scene; where there is none, there is noise.
        """
        self.stop = Flag()
        self._options = options
        self._clips = clips
        self._backgrounds = backgrounds
        self._library = _Library()

    def make(self, number: int) -> Scene:
        """Draw a scene and write its audio."""
        options = self._options
        rng = np.random.default_rng([options.seed, number])
        events, left_out = draw_events(rng, self._clips, options)
        name, background = self._background(rng)
        file = f"scene_{number:05d}.{options.format}"
        large = 2 * options.samples > LARGEST_WAV_BYTES
        format = {"flac": "FLAC", "wav": "RF64" if large else "WAV"}[options.format]
        with (
            written_whole(options.folder / "audio" / file) as path,
            soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format=format) as audio,
        ):
            reached_db = self._render(events, _Stream(background), audio)
        return Scene(file, name, events, reached_db, left_out)

    def _render(self, events: list[Event], background: _Stream, audio: soundfile.SoundFile) -> list[float]:
        """Write a scene, a block at a time; return the signal-to-noise ratio of each event."""
        samples, end = self._options.samples, 0
        reached_db: list[float] = []
        under = mixed = np.empty(0, np.float32)  # the background, alone and with events, from `begin` to `end`
        for begin in range(0, samples, BLOCK_SAMPLES):
            if self.stop.is_set():
                raise OutputError("stopped")
            ahead = min(begin + BLOCK_SAMPLES + LONGEST_SAMPLES, samples)
            new, end = background.take(ahead - end), ahead
            under, mixed = np.concatenate([under, new]), np.concatenate([mixed, new])
            while len(reached_db) < len(events) and events[len(reached_db)].onset < begin + BLOCK_SAMPLES:
                event = events[len(reached_db)]
                place = slice(event.onset - begin, event.offset - begin)
                sound, ratio_db = self._sound(event, crowd(event, events), under[place])
                mixed[place] += sound
                reached_db.append(ratio_db)
            # Rounded here: libsndfile would round for FLAC in another way than for WAV.
            audio.write(np.rint(mixed[:BLOCK_SAMPLES] * 2**15).astype(np.int16))
            under, mixed = under[BLOCK_SAMPLES:], mixed[BLOCK_SAMPLES:]
        return reached_db

    def _sound(self, event: Event, shares: int, under: Samples) -> tuple[Samples, float]:
        """Return an event as it is mixed, and its signal-to-noise ratio."""
        clip = event.clip
        sound = self._library.part(clip, clip.start, clip.stop)[: len(under)].copy()
        fade = min(FADE_SAMPLES, len(sound) // 2)
        rise = np.linspace(0, 1, fade, dtype=np.float32)
        sound[:fade] *= rise
        sound[len(sound) - fade :] *= rise[::-1]
        noise_power, power, peak = _power(under), _power(sound), float(np.abs(sound).max())
        if not power:  # a table says that it sounds, but the part before the scene's end does not
            return sound, -math.inf
        wanted = 10 ** (event.snr_db / 20) * math.sqrt(noise_power / power)
        gain = min(wanted, (SCENE_PEAK - float(np.abs(under).max())) / shares / peak)
        return sound * np.float32(gain), 10 * math.log10(gain**2 * power / noise_power)

    def _background(self, rng: Rng) -> tuple[str, Iterator[Samples]]:
        """Draw a background; return its name and its sound, which has no end."""
        noise = rng.spawn(1)[0]
        if not self._backgrounds:
            return "", _noise(noise, self._options.background_db)
        drawn = self._backgrounds[rng.integers(len(self._backgrounds))]
        latest = max(0, drawn.samples - self._options.samples)
        if not drawn.info.exact_seek:
            latest = min(latest, LATEST_START_SAMPLES)
        recorded, floor = self._repeated(drawn, int(rng.integers(latest + 1))), _Stream(_noise(noise, FLOOR_DB))
        return drawn.source.recording, (np.float32(drawn.gain) * block + floor.take(len(block)) for block in recorded)

    def _repeated(self, background: Background, start: int) -> Iterator[Samples]:
        """Yield a background again and again, the end of each pass cross-faded into the beginning of the next."""
        angle: Samples = np.linspace(0, math.pi / 2, CROSS_FADE_SAMPLES, dtype=np.float32)
        rise: Samples = np.sin(angle)
        fall: Samples = np.cos(angle)  # the powers of both add up to one
        end: Samples | None = None
        while True:
            sound = _Stream(self._once(background, start))
            left = background.samples - start - CROSS_FADE_SAMPLES
            if end is not None:
                yield rise * sound.take(CROSS_FADE_SAMPLES) + fall * end
                left -= CROSS_FADE_SAMPLES
            for done in range(0, left, SAMPLE_RATE_HZ):
                yield sound.take(min(SAMPLE_RATE_HZ, left - done))
            end, start = sound.take(CROSS_FADE_SAMPLES), 0

    def _once(self, background: Background, start: int) -> Iterator[Samples]:
        if background.samples > CACHED_SAMPLES:
            return _decoded(background, start)
        return iter([self._library.part(background, 0, background.samples)[start:]])


def draw_events(rng: Rng, clips: list[list[Clip]], options: SynthOptions) -> tuple[list[Event], int]:
    """Draw the events of a scene.

    Args:
        rng: Where chance comes from.
        clips: For each label, its clips.
        options: What is wanted.

    Returns:
        The events in the order of their onsets, and how many found no room.
    """
    count = int(rng.poisson(options.events_per_minute / 60 * options.samples / SAMPLE_RATE_HZ))
    events: list[Event] = []
    for _ in range(count):
        for _ in range(TRIES):
            of_label = clips[rng.integers(len(clips))]
            clip = of_label[rng.integers(len(of_label))]
            length = clip.stop - clip.start
            onset = int(rng.integers(options.samples - min(length, LEAST_SAMPLES) + 1))
            snr_db = float(rng.uniform(*options.snr_db))
            event = Event(onset, min(onset + length, options.samples), clip, snr_db)
            if _fits(event, events, options.max_polyphony):
                insort(events, event, key=_onset)
                break
    return events, count - len(events)


def crowd(event: Event, events: list[Event]) -> int:
    """Return how many events sound at once, at most, while this one does.

    Args:
        event: It counts whether it is one of `events` or not.
        events: In the order of their onsets.
    """
    others = [other for other in _near(event, events, 0) if other is not event]
    onsets, offsets = [other.onset for other in others], sorted(other.offset for other in others)
    moments = [event.onset, *(onset for onset in onsets if onset > event.onset)]
    return 1 + max(bisect_right(onsets, moment) - bisect_right(offsets, moment) for moment in moments)


def _fits(event: Event, events: list[Event], max_polyphony: int | None) -> bool:
    if any(other.clip.label == event.clip.label for other in _near(event, events, GAP_SAMPLES)):
        return False
    return max_polyphony is None or crowd(event, events) <= max_polyphony


def _near(event: Event, events: list[Event], gap: int) -> list[Event]:
    """Return the events that this one overlaps with, or is less than `gap` samples apart from."""
    first = bisect_left(events, event.onset - gap - LONGEST_SAMPLES, key=_onset)
    last = bisect_left(events, event.offset + gap, key=_onset)
    return [other for other in events[first:last] if other.offset > event.onset - gap]


def _onset(event: Event) -> int:
    return event.onset


def _noise(rng: Rng, level_db: float) -> Iterator[Samples]:
    """Yield white noise without end."""
    while True:
        yield rng.standard_normal(SAMPLE_RATE_HZ, np.float32) * np.float32(10 ** (level_db / 20))


def _power(sound: Samples) -> float:
    return float(np.square(sound, dtype=np.float64).mean())


# Output


def _make(maker: SceneMaker, pool: ThreadPoolExecutor, options: SynthOptions, summary: Summary) -> None:
    """Make all scenes, and write the tables as they come."""
    (options.folder / "audio").mkdir(exist_ok=True)
    _note(options, _description(options))
    length_s = options.samples / SAMPLE_RATE_HZ
    with ExitStack() as stack:
        paths = [stack.enter_context(written_whole(options.folder / name)) for name in TABLES]
        strong, weak, events = (stack.enter_context(path.open("w", encoding="utf-8")) for path in paths)
        strong.write("filename\tonset\toffset\tevent_label\n")
        weak.write(f"# {PROGRAM}\n# num_ytids={options.scenes}, num_segs={options.scenes}\n")
        weak.write("# YTID, start_seconds, end_seconds, positive_labels\n")
        events.write("filename\tonset\toffset\tevent_label\tdisplay_name\tsource\tsource_onset\tsnr_db\treached_db\n")
        try:
            for scene in pool.map(maker.make, range(options.scenes)):
                _write_events(strong, events, scene)
                mids = ",".join(sorted({event.clip.label.mid for event in scene.events}))
                weak.write(f'{Path(scene.file).stem}, 0.000, {length_s:.3f}, "{mids}"\n')
                summary.add(scene, length_s)
        finally:
            maker.stop.set()  # or an interrupted run would wait for the end of long scenes
            pool.shutdown(cancel_futures=True)
    _note(options, _description(options) | _results(summary))


def _write_events(strong: IO[str], details: IO[str], scene: Scene) -> None:
    """Write the events of a scene; of seconds, 7 decimals tell the very sample."""
    for event, reached_db in zip(scene.events, scene.reached_db, strict=True):
        clip = event.clip
        onset_s, offset_s, start_s = (samples / SAMPLE_RATE_HZ for samples in (event.onset, event.offset, clip.start))
        row = f"{scene.file}\t{onset_s:.7f}\t{offset_s:.7f}\t{clip.label.mid}"
        strong.write(f"{row}\n")
        source = f"{clip.label.name}\t{clip.source.recording}\t{start_s:.7f}"
        details.write(f"{row}\t{source}\t{event.snr_db:.3f}\t{reached_db:.3f}\n")
    if not scene.events:
        strong.write(f"{scene.file}\t\t\t\n")


@contextmanager
def _claimed(options: SynthOptions) -> Iterator[None]:
    """Hold the output folder, emptied of the scenes of an earlier run.

    Raises:
        OutputError: It holds something else, or finished scenes that are not to be replaced, or another run holds it.
    """
    out = options.folder
    if is_remote(options.out) or (out.exists() and not out.is_dir()):
        raise OutputError(f"{options.out} is not a folder of this machine")
    if out.is_dir() and {path.name for path in out.iterdir()} - {".lock"}:
        try:
            earlier = json.loads((out / "synth.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            earlier = None
        if not isinstance(earlier, dict) or earlier.get("program") != PROGRAM:
            raise OutputError(f"{out} is not empty, and not made by {PROGRAM}: give another folder")
        if earlier.get("finished") and not options.overwrite:
            raise OutputError(f"{out} holds scenes already: give another folder, or --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"{out} is being written by another {PROGRAM}; let it finish first") from None
    try:
        for pattern in (*TABLES, *(f".{name}.*" for name in TABLES), "audio/scene_*", "audio/.scene_*"):
            for path in out.glob(pattern):
                path.unlink()
        yield
    finally:
        lock.release()


def _description(options: SynthOptions) -> dict[str, object]:
    """Return what decides on the scenes."""
    others = ("out", "workers", "overwrite")
    return {
        "program": PROGRAM,
        "finished": False,
        "options": {name: value for name, value in asdict(options).items() if name not in others},
        "rate_hz": SAMPLE_RATE_HZ,
        "versions": {name: version(name) for name in ("satpipe", "numpy", "soundfile", "soxr")},
    }


def _results(summary: Summary) -> dict[str, object]:
    return {
        "finished": True,
        "events": summary.classes.total(),
        "quieter_than_asked": summary.quieter,
        "left_out": summary.left_out,
        "classes": dict(sorted(summary.classes.items())),
        "foreground": dict(sorted(summary.foreground.items())),
        "background": dict(sorted(summary.background.items())),
        "skipped": summary.skipped,
    }


def _note(options: SynthOptions, content: dict[str, object]) -> None:
    with written_whole(options.folder / "synth.json") as path:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
