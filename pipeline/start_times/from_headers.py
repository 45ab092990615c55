"""Read start times from the metadata of WAV, RF64, W64 and FLAC files.

    guano    GUANO's field Timestamp: https://guano-md.org
    comment  the RIFF tag ICMT of AudioMoths: "Recorded at 03:20:00 10/05/2025 (UTC) by AudioMoth ..."; the first
             firmware writes no (UTC). In FLAC, a tag with this text
    bext     Broadcast Wave's date and time of origination: https://tech.ebu.ch/publications/tech3285
    ixml     the same in iXML, with its time stamp: http://www.gallery.co.uk/ixml/

In FLAC, the chunks of a WAV file are also found as `flac --keep-foreign-metadata` stores them:
https://github.com/xiph/flac/blob/master/doc/foreign_metadata_storage.md

soundfile does not return these, and libraries for them (guano, wavinfo) know only some of the chunks in some of the
formats.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import IO, NamedTuple

from satpipe.pipeline.storage import RemoteFile, is_remote
from satpipe.sat.errors import SatpipeError

KINDS = ("guano", "comment", "bext", "ixml")
"""Kinds of metadata; the first one with a time counts."""

_MAX_CHUNKS = 64
_MAX_BYTES = 2**20  # read of a chunk
_BLOCK_BYTES = 2**16  # read per request from an object store
_READ = {b"fmt ", b"bext", b"guan", b"LIST", b"iXML", b"ixml", b"list"}  # the last two as W64 spells them
_APPLICATION, _TAGS = 2, 4  # types of FLAC's metadata blocks
_IN_DS64 = 0xFFFFFFFF  # size of an RF64's data chunk: the chunk ds64 has it
_COMMENT = re.compile(
    r"Recorded at (?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,6})? (?P<date>\d\d/\d\d/\d{4}) "
    r"(?:by |\(UTC(?:(?P<sign>[+-])(?P<hours>\d{1,2})(?::(?P<minutes>\d\d))?)?\))"
)
_GUANO = re.compile(
    r"^\s*Timestamp\s*:\s*(?P<time>\d{4}-?\d\d-?\d\d[T ][^\s+-]+) ?(?P<zone>[+-]\S+|Z)?\s*$", re.MULTILINE
)


class HeaderTime(NamedTuple):
    """A start time in the metadata of a file."""

    kind: str
    """One of `KINDS`."""
    time: str
    """ISO 8601; with an offset if the metadata have one, otherwise in the recorder's time zone."""


def read_header_time(path: str) -> HeaderTime | None:
    """Return the start time in the metadata of a file; None if they have none or are damaged."""
    try:
        with io.BufferedReader(RemoteFile(path, _BLOCK_BYTES)) if is_remote(path) else open(path, "rb") as file:
            chunks: dict[str, bytes] = {}
            head = file.read(12)
            for name, content in _flac_chunks(file) if head[:4] == b"fLaC" else _chunks(file, head):
                chunks[name] = chunks.get(name, b"") + content
    except (OSError, ValueError, SatpipeError):
        return None
    rate_hz = int.from_bytes(chunks.get("fmt ", b"")[4:8], "little")
    texts = {
        kind: chunks.get(kind, b"").decode("utf-8", "replace").replace("\0", "\n") for kind in ("guan", "list", "ixml")
    }
    found = {
        "guano": _guano(texts["guan"]),
        "comment": _comment(texts["list"]),
        "bext": _bext(chunks.get("bext", b""), rate_hz),
        "ixml": _ixml(texts["ixml"], rate_hz),
    }
    return next((HeaderTime(kind, time.isoformat()) for kind in KINDS if (time := found[kind])), None)


def _chunks(file: IO[bytes], head: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield lower-case names and contents of the chunks in `_READ`; `head` is the beginning of the file."""
    w64 = head[:4] == b"riff"
    if not w64 and not (head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:] == b"WAVE"):
        return
    at, data_bytes = 40 if w64 else 12, 0
    header = struct.Struct("<4s12xQ" if w64 else "<4sI")
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        packed = file.read(header.size)
        if len(packed) < header.size:
            return
        name, size = header.unpack(packed)
        if w64:
            size -= header.size  # it includes the chunk's header
        elif name == b"data" and size == _IN_DS64:
            size = data_bytes
        if size < 0 or (name == b"data" and not size):
            return  # the file was not closed
        if name == b"ds64":
            data_bytes = int.from_bytes(file.read(16)[8:], "little")
        elif name in _READ:
            yield name.decode().lower(), file.read(min(size, _MAX_BYTES))
        at += header.size + size
        if w64:
            at += -at % 8
        elif size % 2:  # the padding byte is zero, but some programs do not write it
            file.seek(at)
            at += file.read(1) == b"\0"


def _flac_chunks(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the chunks of the WAV file that a FLAC file was made from, and its tags as a chunk `list`."""
    at = 4
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        header = file.read(8)
        if len(header) < 8:
            return
        kind, size, application = header[0] & 0x7F, int.from_bytes(header[1:4], "big"), header[4:]
        rest_bytes = min(max(size - 4, 0), _MAX_BYTES)
        if kind == _APPLICATION and application == b"riff":
            content = file.read(rest_bytes)
            if content[:4] in _READ:
                yield content[:4].decode().lower(), content[8:]
        elif kind == _TAGS:
            yield "list", application + file.read(rest_bytes)
        if header[0] & 0x80:  # the last one
            return
        at += 4 + size


def _guano(text: str) -> datetime | None:
    found = _GUANO.search(text)
    with suppress(ValueError):
        return datetime.fromisoformat(found["time"] + (found["zone"] or "")) if found else None
    return None


def _comment(text: str) -> datetime | None:
    found = _COMMENT.search(text)
    if found is None:
        return None
    offset = f"{found['sign'] or '+'}{int(found['hours'] or 0):02}{found['minutes'] or '00'}"
    fraction = found["fraction"] or ".0"
    return _parsed(f"{found['date']} {found['time']}{fraction}{offset}", "%d/%m/%Y %H:%M:%S.%f%z")


def _bext(chunk: bytes, rate_hz: int) -> datetime | None:
    if len(chunk) < 346:
        return None
    date, clock = (chunk[begin:end].decode("ascii", "replace") for begin, end in ((320, 330), (330, 338)))
    return _originated(date, clock, int.from_bytes(chunk[338:346], "little"), rate_hz)


def _ixml(text: str, rate_hz: int) -> datetime | None:
    def value(*names: str) -> str:
        found = (re.search(rf"<{name}>\s*([^<]*?)\s*</{name}>", text) for name in names)
        return next((each[1] for each in found if each), "")

    def samples(*names: str) -> int:
        number = value(*names)
        return int(number) if number.isdecimal() else 0

    low = samples("TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO", "BWF_TIME_REFERENCE_LOW")
    high = samples("TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI", "BWF_TIME_REFERENCE_HIGH")
    rate_hz = samples("TIMESTAMP_SAMPLE_RATE") or rate_hz
    return _originated(value("BWF_ORIGINATION_DATE"), value("BWF_ORIGINATION_TIME"), (high << 32) + low, rate_hz)


def _originated(date: str, clock: str, samples: int, rate_hz: int) -> datetime | None:
    """Return the date and time of origination.

    The number of samples since midnight adds the fraction of the second, or replaces a missing time. A number that
    contradicts the time is the time code of a production, and is ignored.
    """
    digits = re.fullmatch(r"(\d{4}).(\d\d).(\d\d)\D*", date)
    day = _parsed("".join(digits.groups()), "%Y%m%d") if digits else None
    if day is None:
        return None
    counted = day + timedelta(seconds=samples / rate_hz) if samples and rate_hz else None
    parts = re.fullmatch(r"(\d\d).(\d\d).(\d\d)\D*", clock)
    stated = _parsed(f"{day:%Y%m%d}{''.join(parts.groups())}", "%Y%m%d%H%M%S") if parts else None
    if stated is None:
        return counted
    return counted if counted and timedelta() <= counted - stated < timedelta(seconds=1) else stated


def _parsed(text: str, pattern: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.strptime(text, pattern)
    return None
