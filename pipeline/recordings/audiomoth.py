"""Triggered recordings of AudioMoths: the quiet stretches that the recorder left out.

The files, called `...T.WAV`, consist of blocks of 512 bytes, counted from the start of the file. Where the sound was
below the threshold, one block stands for many: its first 32 samples are 1 or -1, the bits of their number from the
lowest one, and the others are 0. Source: the AudioMoth firmware and AudioMoth-Utils of Open Acoustic Devices.
"""

import re
from typing import IO

import numpy as np
from satpipe.pipeline.recordings.spliced import Piece
from satpipe.sat.errors import AudioError

BLOCK_BYTES = 512
READ_BLOCKS = 2**13  # 4 MB
LONGEST_S = 86_400 + 3600  # of such a recording
_NAME = re.compile(r"\dT\.WAV$", re.IGNORECASE)
_HEADER = re.compile(rb"AudioMoth.*threshold was", re.DOTALL)
_BITS = 2 ** np.arange(32, dtype=np.uint64)


def may_be_triggered(name: str, header: bytes) -> bool:
    """Return True for a name or a header as triggered recordings have them."""
    return bool(_NAME.search(name) or _HEADER.search(header))


def expanded(file: IO[bytes], begin: int, end: int, rate_hz: int) -> tuple[Piece, ...]:
    """Return the pieces of a recording: its samples, and zeros for what was left out.

    Args:
        file: A file with 16-bit samples of one channel.
        begin: Position of the first sample.
        end: Position after the last one.
        rate_hz: Its sampling rate.

    Raises:
        OSError: The file cannot be read.
        AudioError: The quiet stretches are longer than any recording.
    """
    pieces, done = [], begin
    at = begin + -begin % BLOCK_BYTES
    total = 0
    while at + BLOCK_BYTES <= end:
        file.seek(at)
        content = file.read(min(READ_BLOCKS, (end - at) // BLOCK_BYTES) * BLOCK_BYTES)
        blocks = np.frombuffer(content, "<i2", len(content) // BLOCK_BYTES * (BLOCK_BYTES // 2)).reshape(-1, 256)
        if not len(blocks):
            break
        for number in np.flatnonzero((np.abs(blocks[:, 0]) == 1) & (blocks[:, -1] == 0)):
            left_out = _left_out(blocks[number])
            if left_out:
                place = at + int(number) * BLOCK_BYTES
                pieces += [Piece(done, place - done), Piece(None, left_out * BLOCK_BYTES)]
                total += left_out * BLOCK_BYTES
                done = place + BLOCK_BYTES
        at += len(blocks) * BLOCK_BYTES
    if total > LONGEST_S * rate_hz * 2:
        left_out_h = total / 2 / rate_hz / 3600
        raise AudioError(f"it seems to leave out {left_out_h:,.0f} h of silence, more than a recorder does")
    return _joined([*pieces, Piece(done, end - done)]) if pieces else ()


def _left_out(block: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> int:
    """Return the number of blocks that a block stands for; 0 if it is sound."""
    bits = block[:32].astype(np.int64)
    if block[32:].any() or (np.abs(bits) != 1).any():
        return 0
    return int(_BITS[bits == 1].sum())


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Join stretches of zeros that follow each other, and leave out empty pieces."""
    joined: list[Piece] = []
    for piece in pieces:
        if not piece.size:
            continue
        if joined and piece.begin is None and joined[-1].begin is None:
            joined[-1] = Piece(None, joined[-1].size + piece.size)
        else:
            joined.append(piece)
    return tuple(joined)
