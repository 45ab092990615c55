"""Moments to listen to: short excerpts of the recordings as Ogg Opus, which browsers play."""

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from operator import attrgetter, itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from satpipe.jobs.report_data.moments import Excerpt, Moment
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.recordings.recording import file_and_channel
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.tables.open_folder import Tables, side_by_side
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

MARGIN_S = 1.5  # before and after the chunk
MAX_LENGTH_S = 12.0
MAX_BYTES = 4_000_000  # of all excerpts
FADE_S = 0.02  # at both ends
TAIL_S = 0.1  # silence at the end: libsndfile loses the last milliseconds of Opus or lets them overshoot
LOUDEST = 0.7  # peak of quiet excerpts after amplification, of full scale
MAX_GAIN = 30.0
_Place = tuple[str, float, float]  # recording, start and end of a chunk in seconds
_Part = tuple[float, str, tuple[int, int]]  # start in the recording, file, its size and modification time when tagged
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def with_sound(tables: Tables, moments: Sequence[Moment]) -> list[Moment]:
    """Return moments with their sound, or with the reason why there is none.

    The total size is at most `MAX_BYTES`; the first moments of each label have priority.
    """
    ordered = sorted(moments, key=attrgetter("rank", "kind", "label"))
    places = list(dict.fromkeys(map(_place, ordered)))
    sources = _Sources(tables, {recording for recording, *_ in places})
    by_recording = [list(some) for _, some in groupby(sorted(places), key=itemgetter(0))]
    read = side_by_side(lambda some: [(place, sources.read(*place)) for place in some], by_recording)
    found = {place: sound for some in read for place, sound in some}
    size = 0
    for place in places:
        size += len(found[place].audio or b"")
        if found[place].audio and size > MAX_BYTES:
            found[place] = Excerpt(silent=f"left out, since the page already has {MAX_BYTES / 1e6:.0f} MB of sound")
    return [replace(moment, excerpt=found[_place(moment)]) for moment in moments]


def _place(moment: Moment) -> _Place:
    return moment.recording, moment.start_s, moment.end_s


class _Sources:
    """The files of recordings, provided that they have not changed since they were tagged."""

    def __init__(self, tables: Tables, recordings: set[str]) -> None:
        """Search the inputs in `run.json` for recordings."""
        self._tables = tables
        self._channels = tables.run["identity"].get("channels", "mix")
        self._files: dict[str, Source] = {}
        wanted = {file for recording in recordings for _, file, _ in self._parts(recording)}
        for source in _sources(tables.run.get("inputs", [])):
            if source.recording in wanted:
                self._files.setdefault(source.recording, source)
                if len(self._files) == len(wanted):
                    break

    def _channel(self, recording: str) -> int | None:
        """Return the channel that was tagged, counted from 1; None for the mean of all."""
        _, channel = file_and_channel(recording, split=self._channels == "split")
        return int(self._channels) if self._channels.isdecimal() else channel

    def _parts(self, recording: str) -> list[_Part]:
        """Return the files that a recording was read from, in order."""
        table, row = self._tables.table, int(self._tables.rows([recording])[0])
        files = table["files"][row].as_py()
        if files:
            return [(each["start_s"], each["file"], (each["size_bytes"], each["modified"].value)) for each in files]
        name, _ = file_and_channel(recording, split=self._channels == "split")
        modified_ns = pc.cast(table["modified"].slice(row, 1), pa.int64())[0].as_py()
        return [(0.0, name, (table["size_bytes"][row].as_py(), modified_ns))]

    def read(self, recording: str, start_s: float, end_s: float) -> Excerpt:
        """Return the sound of a chunk with a margin, up to the end of the file in which it begins."""
        part_s, file, state = [part for part in self._parts(recording) if part[0] <= start_s][-1]
        begin_s = max(part_s, start_s - MARGIN_S)
        length_s = min(MAX_LENGTH_S, end_s + MARGIN_S - begin_s)
        start = int((begin_s - part_s) * SAMPLE_RATE_HZ)
        try:
            source = self._file(file, state)
            info = probe(source.path, source.size_bytes)
            reader = Reader(source.path, info, self._channel(recording), start)
            samples = _first(reader, int(length_s * SAMPLE_RATE_HZ))
            return Excerpt(_opus(_audible(samples)), part_s + start / SAMPLE_RATE_HZ)
        except AudioError as error:
            return Excerpt(silent=str(error))

    def _file(self, file: str, state: tuple[int, int]) -> Source:
        if file not in self._files:
            raise AudioError("its file no longer exists")
        source = self._files[file]
        if (source.size_bytes, source.modified_ns) != state:
            raise AudioError("its file has changed since it was tagged")
        return source


def _sources(inputs: Sequence[str]) -> Iterator[Source]:
    """Yield the files of inputs, skipping inputs that no longer exist."""
    for given in inputs:
        try:
            yield from Search((given,))
        except ConfigError:
            continue


def _first(reader: Reader, samples: int) -> Samples:
    """Return the first samples of a reader.

    Raises:
        AudioError: The reader has no samples.
    """
    found: list[Samples] = []
    with closing(reader.blocks()) as blocks:
        for block in blocks:
            found.append(block)
            if sum(map(len, found)) >= samples:
                break
    if not sum(map(len, found)):
        raise AudioError("its file ends before this moment")
    return np.concatenate(found)[:samples]


def _audible(samples: Samples) -> Samples:
    """Amplify an excerpt to the peak `LOUDEST`, by at most `MAX_GAIN`, and fade its ends."""
    gain = np.full(len(samples), min(MAX_GAIN, LOUDEST / max(float(np.abs(samples).max()), 1e-9)), np.float32)
    fade = np.linspace(0, 1, min(int(FADE_S * SAMPLE_RATE_HZ), len(samples) // 2), dtype=np.float32)
    gain[: len(fade)] *= fade
    gain[len(gain) - len(fade) :] *= fade[::-1]
    return samples * gain


def _opus(samples: Samples) -> bytes:
    """Encode 16 kHz mono samples; the same samples give the same bytes."""
    file = io.BytesIO()
    samples = np.pad(samples, (0, int(TAIL_S * SAMPLE_RATE_HZ)))
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    content, done = file.getvalue(), b""
    # libsndfile gives each stream a random serial number: set it to 0, and update each page's checksum (RFC 3533).
    while content:
        segments = content[26]
        size = 27 + segments + sum(content[27 : 27 + segments])
        page = content[:14] + bytes(4) + content[18:22] + bytes(4) + content[26:size]
        done += page[:22] + _checksum(page).to_bytes(4, "little") + page[26:]
        content = content[size:]
    return done


def _checksum(page: bytes) -> int:
    """Return Ogg's checksum: zlib's polynomial, but highest bit first, without initial and final inversion."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
