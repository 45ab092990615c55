"""Chained Ogg files: streams that follow each other in a file, as captured web radio has them.

Of such a file, libsndfile reads the first stream. Ogg's pages: https://www.rfc-editor.org/rfc/rfc3533
"""

from itertools import pairwise
from typing import IO, NamedTuple

from satpipe.pipeline.recordings.spliced import Contents, Layout, Piece

MAGIC = b"OggS"
_HEADER_BYTES = 27  # followed by the sizes of up to 255 segments of up to 255 bytes
_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255  # maximum
_FIRST = 2  # flag of the first page of a stream
_SAMPLED = 16  # pages that are compared in a large file


class _Page(NamedTuple):
    begin: int
    size_bytes: int
    first: bool
    serial: int
    number: int


def examine_ogg(file: IO[bytes], size_bytes: int) -> Contents:
    """Find the streams of an Ogg file.

    Raises:
        OSError: The file cannot be read.
    """
    if size_bytes > 2 * _SAMPLED * _PAGE_BYTES and _is_one_stream(file, size_bytes):
        return Contents()
    begins = _begins(file)
    if len(begins) < 2:
        return Contents()
    ranges = pairwise([*begins, size_bytes])
    return Contents(tuple(Layout(b"", (Piece(begin, end - begin),)) for begin, end in ranges))


def _is_one_stream(file: IO[bytes], size_bytes: int) -> bool:
    """Compare pages from all over a file: in a single stream, they have one serial number and ascending numbers."""
    pages = [_page_from(file, size_bytes * place // _SAMPLED) for place in range(_SAMPLED)]
    pages.append(_last_page(file, size_bytes))
    return all(
        before and after and before.serial == after.serial and before.number < after.number
        for before, after in pairwise(pages)
    )


def _last_page(file: IO[bytes], size_bytes: int) -> _Page | None:
    begin = size_bytes - _PAGE_BYTES
    file.seek(begin)
    at = file.read().rfind(MAGIC + b"\0")
    return _page_at(file, begin + at) if at >= 0 else None


def _begins(file: IO[bytes]) -> list[int]:
    """Return the positions at which streams begin; streams that begin together are played together."""
    begins, before_is_first = [], False
    page = _page_from(file, 0)
    while page:
        if page.first and not before_is_first:
            begins.append(page.begin)
        before_is_first = page.first
        # A page that is cut off is followed by the first page of the next stream, before its announced end.
        at = page.begin + page.size_bytes
        page = _page_at(file, at) or _page_from(file, page.begin + _HEADER_BYTES)
    return begins


def _page_at(file: IO[bytes], at: int) -> _Page | None:
    file.seek(at)
    head = file.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or head[:5] != MAGIC + b"\0":
        return None
    segments = file.read(head[26])
    serial, number = (int.from_bytes(head[begin : begin + 4], "little") for begin in (14, 18))
    return _Page(at, _HEADER_BYTES + len(segments) + sum(segments), bool(head[5] & _FIRST), serial, number)


def _page_from(file: IO[bytes], at: int) -> _Page | None:
    """Return the first page at or after a position."""
    file.seek(at)
    before = b""
    while block := file.read(_PAGE_BYTES):
        found = (before + block).find(MAGIC + b"\0")
        if found >= 0:
            return _page_at(file, at - len(before) + found)
        before, at = block[-len(MAGIC) :], at + len(block)
    return None
