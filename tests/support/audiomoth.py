"""Triggered recordings as AudioMoths write them: a quiet stretch is one block that says how many it stands for."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

COMMENT = (
    "Recorded at {} 10/05/2025 (UTC) by AudioMoth 24E144085F256D6B at medium gain while battery was 4.1V. "
    "Amplitude threshold was 512 with 1s minimum trigger duration."
)
BLOCK = 256  # samples
FIRST = 12  # samples between the header of 488 bytes and the first whole block
Pcm = npt.NDArray[np.int16]


def quiet(blocks: int) -> bytes:
    """The block that stands for so many quiet ones."""
    bits = np.zeros(BLOCK, "<i2")
    bits[:32] = [1 if blocks >> bit & 1 else -1 for bit in range(32)]
    return bits.tobytes()


def write_triggered(path: Path, stretches: Sequence[Pcm | int], clock: str = "03:20:00") -> Pcm:
    """Write a recording; return its samples with what was left out as zeros.

    Args:
        path: Where.
        stretches: Samples, or numbers of blocks that are left out. All samples before a number must fill their blocks:
            the first stretch has 12 samples more.
        clock: Time of its start on 10 May 2025.
    """
    rate_hz, text = 16_000, COMMENT.format(clock).encode()
    data = b"".join(quiet(each) if isinstance(each, int) else each.astype("<i2").tobytes() for each in stretches)
    comment = struct.pack("<4sI4s4sI384s4sI32s", b"LIST", 436, b"INFO", b"ICMT", 384, text, b"IART", 32, b"AudioMoth")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    head = b"WAVE" + form + comment + struct.pack("<4sI", b"data", len(data))
    assert len(head) == 480
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(head) + len(data)) + head + data)
    zeros = [np.zeros(each * BLOCK, np.int16) if isinstance(each, int) else each for each in stretches]
    return np.concatenate([np.zeros(0, np.int16), *zeros])
