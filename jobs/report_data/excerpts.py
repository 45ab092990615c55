"""Moments to listen to: short pieces of the recordings as Ogg Opus, which browsers play."""

import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from satpipe.jobs.report_data.moments import Spot
from satpipe.pipeline.recordings.decode import Reader, Samples, probe
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.tables.open_folder import Tables, side_by_side
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

MARGIN_S = 1.5  # before the chunk and after it
LONGEST_S = 12.0
MOST_BYTES = 4_000_000  # of all together
FADE_S = 0.02  # at both ends
TAIL_S = 0.1  # of silence, since libsndfile loses the last milliseconds of Opus, or has them overshoot
LOUDEST = 0.7  # of full scale, which quiet pieces are brought to
MOST_GAIN = 30.0
_CHANNEL = re.compile(r"#ch(\d+)$")
_Place = tuple[int, float, float]  # position of a recording in the tables, start and end of a chunk in seconds
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Part(NamedTuple):
    """A file that a recording was read from, as it was when it was tagged."""

    file: str
    start_s: float
    """Where in the recording it begins."""
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Excerpt:
    """How a moment sounds."""

    audio: bytes | None = None
    """Ogg Opus; None if there is none."""
    start_s: float = 0.0
    """Where in the recording it begins."""
    silent: str = ""
    """Why there is none; "" where there is, or where none was wanted."""


NO_EXCERPT = Excerpt()


def excerpts(tables: Tables, spots: Sequence[Spot]) -> list[Excerpt]:
    """Return the sound of moments; where a recording cannot be had any more, why.

    Once they take `MOST_BYTES`, there are no more: the first moments of each label come first.
    """
    places = sorted({(spot.recording, spot.start_s, spot.end_s) for spot in spots})
    sources = _Sources(tables, {recording for recording, *_ in places})
    by_recording = [list(some) for _, some in groupby(places, key=itemgetter(0))]
    found = {place: sound for some in side_by_side(sources.read, by_recording) for place, sound in some}
    size, counted = 0, set()
    for spot in sorted(spots, key=attrgetter("rank", "kind", "label")):
        place = (spot.recording, spot.start_s, spot.end_s)
        audio = found[place].audio
        if audio and place not in counted:
            size += len(audio)
            counted.add(place)
            if size > MOST_BYTES:
                found[place] = Excerpt(silent=f"left out: there are {MOST_BYTES / 1e6:.0f} MB of sound without it")
    return [found[spot.recording, spot.start_s, spot.end_s] for spot in spots]


class _Sources:
    """The files of recordings, as far as they are what was tagged."""

    def __init__(self, tables: Tables, recordings: set[int]) -> None:
        """Look for recordings, given by position in the tables, where `run.json` says that they were."""
        self._tables = tables
        self._channels = tables.run["identity"].get("channels", "mix")
        self._files: dict[str, Source] = {}
        wanted = {part.file for row in recordings for part in self._parts(row)}
        for source in _sources(tables.run.get("inputs", [])):
            if source.recording in wanted:
                self._files.setdefault(source.recording, source)
                if len(self._files) == len(wanted):
                    break

    def _channel(self, recording: str) -> int | None:
        """The channel that was tagged, counted from 1; None for the mean of all."""
        split = _CHANNEL.search(recording) if self._channels == "split" else None
        if split:
            return int(split[1])
        return int(self._channels) if self._channels.isdecimal() else None

    def _parts(self, row: int) -> list[_Part]:
        """The files that a recording was read from, in order."""
        table, recording = self._tables.table, self._tables.recordings[row]
        files = table["files"][row].as_py()
        if files:
            return [_Part(each["file"], each["start_s"], each["size_bytes"], each["modified"].value) for each in files]
        name = recording if self._channels != "split" else _CHANNEL.sub("", recording)
        modified_ns = pc.cast(table["modified"].slice(row, 1), pa.int64())[0].as_py()
        return [_Part(name, 0.0, table["size_bytes"][row].as_py(), modified_ns)]

    def read(self, places: list[_Place]) -> list[tuple[_Place, Excerpt]]:
        """Return the sound of places of one recording."""
        return [(place, self._excerpt(*place)) for place in places]

    def _excerpt(self, row: int, start_s: float, end_s: float) -> Excerpt:
        """The sound of one place, as far as it is in the file that it begins in."""
        part = [part for part in self._parts(row) if part.start_s <= start_s][-1]
        begin_s = max(part.start_s, start_s - MARGIN_S)
        length_s = min(LONGEST_S, end_s + MARGIN_S - begin_s)
        start = int((begin_s - part.start_s) * SAMPLE_RATE_HZ)
        try:
            source = self._file(part)
            info = probe(source.path, source.size_bytes)
            reader = Reader(source.path, info, self._channel(self._tables.recordings[row]), start)
            samples = _first(reader, int(length_s * SAMPLE_RATE_HZ))
            return Excerpt(_opus(_audible(samples)), part.start_s + start / SAMPLE_RATE_HZ)
        except AudioError as error:
            return Excerpt(silent=str(error))

    def _file(self, part: _Part) -> Source:
        if part.file not in self._files:
            raise AudioError("its file is not where it was")
        source = self._files[part.file]
        if (source.size_bytes, source.modified_ns) != (part.size_bytes, part.modified_ns):
            raise AudioError("its file has changed since it was tagged")
        return source


def _sources(inputs: Sequence[str]) -> Iterator[Source]:
    """Yield what there is under inputs; some may be gone."""
    for given in inputs:
        try:
            yield from Search((given,))
        except ConfigError:
            continue


def _first(reader: Reader, samples: int) -> Samples:
    """Return the first samples that a reader gives.

    Raises:
        AudioError: There are none.
    """
    found: list[Samples] = []
    with closing(reader.blocks()) as blocks:
        for block in blocks:
            found.append(block)
            if sum(map(len, found)) >= samples:
                break
    if not sum(map(len, found)):
        raise AudioError("it ends before")
    return np.concatenate(found)[:samples]


def _audible(samples: Samples) -> Samples:
    """Bring a piece to the same peak as others, without a click at its ends; what is very quiet stays quieter."""
    gain = np.full(len(samples), min(MOST_GAIN, LOUDEST / max(float(np.abs(samples).max()), 1e-9)), np.float32)
    fade = np.linspace(0, 1, min(int(FADE_S * SAMPLE_RATE_HZ), len(samples) // 2), dtype=np.float32)
    gain[: len(fade)] *= fade
    gain[len(gain) - len(fade) :] *= fade[::-1]
    return samples * gain


def _opus(samples: Samples) -> bytes:
    """Encode 16 kHz mono samples; the same ones give the same bytes."""
    file = io.BytesIO()
    samples = np.pad(samples, (0, int(TAIL_S * SAMPLE_RATE_HZ)))
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    content, done = file.getvalue(), b""
    # libsndfile gives each stream a random number. With another one, the checksums of pages (RFC 3533) are others.
    while content:
        segments = content[26]
        size = 27 + segments + sum(content[27 : 27 + segments])
        page = content[:14] + bytes(4) + content[18:22] + bytes(4) + content[26:size]
        done += page[:22] + _checksum(page).to_bytes(4, "little") + page[26:]
        content = content[size:]
    return done


def _checksum(page: bytes) -> int:
    """Ogg's: the polynomial of zlib's, but the highest bit first, and with nothing before or after."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
