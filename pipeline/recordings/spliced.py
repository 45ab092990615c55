"""A file as its decoder should see it: other first bytes, and only some of the rest. Nothing is copied."""

import io
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from satpipe.pipeline.storage import RemoteFile, is_remote


@dataclass(frozen=True)
class Piece:
    """Bytes of a file from `begin` on; zeros if `begin` is None."""

    begin: int | None
    size: int


@dataclass(frozen=True)
class Layout:
    """What a decoder should read: `head`, which replaces the first bytes of the file, and pieces of the file."""

    head: bytes
    pieces: tuple[Piece, ...]

    @cached_property
    def begins(self) -> list[int]:
        """Position of each piece after the head; the last entry is the end."""
        return list(accumulate((piece.size for piece in self.pieces), initial=len(self.head)))

    @property
    def size_bytes(self) -> int:
        """Size of what a decoder reads."""
        return self.begins[-1]


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        layouts: What libsndfile should read, one after the other; empty for the file as it is.
        warnings: What was corrected.
        problem: Why the file is known to be cut off, or "".
        quiet: Stretches that the recorder left out, from a frame to a frame.
        frames: Samples per channel; 0 if only libsndfile knows.
    """

    layouts: tuple[Layout, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""
    quiet: tuple[tuple[int, int], ...] = ()
    frames: int = 0


class SplicedFile(io.RawIOBase):
    """A file read according to a layout.

    Decoders in C read it through callbacks that cannot raise: an error ends the file for them and is kept here.

    Attributes:
        error: Why reading broke off, or "".
    """

    def __init__(self, path: str, layout: Layout, block_bytes: int | None = None) -> None:
        """Open the file; `block_bytes` is that of `RemoteFile`.

        Raises:
            ConfigError: The scheme of a URL needs an extra that is not installed.
            OSError: The file cannot be opened.
        """
        super().__init__()
        self.error = ""
        self._file: Any = RemoteFile(path, block_bytes) if is_remote(path) else io.FileIO(path)
        self._layout, self._at = layout, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes, fewer than its size at the end or after an error."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and (size := self._read_some(view[done:])):
            done += size
            self._at += size
        return done

    def _read_some(self, view: memoryview) -> int:
        """Read at most to the end of a piece."""
        head, begins = self._layout.head, self._layout.begins
        number = bisect_right(begins, self._at) - 1  # -1 in the head
        if number == len(self._layout.pieces):
            return 0
        view = view[: begins[number + 1] - self._at]
        begin = None if number < 0 else self._layout.pieces[number].begin
        if begin is not None:
            return self._read_file(begin + self._at - begins[number], view)
        view[:] = head[self._at : self._at + len(view)] if number < 0 else bytes(len(view))
        return len(view)

    def _read_file(self, at: int, view: memoryview) -> int:
        try:
            self._file.seek(at)
            done = self._file.readinto(view)
        except (OSError, ValueError) as error:
            self.error = str(error)
            return 0
        self.error = getattr(self._file, "error", "")
        return int(done)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._layout.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
