"""Silence C libraries: libsndfile's decoder of MP3 prints its problems, without the name of the file."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_libc = ctypes.CDLL(None)
_libc.fopen.restype = ctypes.c_void_p
# C's own variable: Python, and whoever else writes to descriptor 2, is not silenced.
_stderr = ctypes.c_void_p.in_dll(_libc, "__stderrp" if sys.platform == "darwin" else "stderr")
_printed = _stderr.value
_nowhere = _libc.fopen(b"/dev/null", b"w") or _printed
_lock = Lock()
_inside = 0  # threads in a block


@contextmanager
def silenced() -> Iterator[None]:
    """Discard what C libraries print to standard error in this block."""
    global _inside
    with _lock:
        _inside += 1
        _stderr.value = _nowhere
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _stderr.value = _printed
