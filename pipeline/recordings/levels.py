"""What the samples of a recording are like: levels and silence, counted while they are decoded.

A recording is decoded in parts, by several workers. The counts of its parts add up to the same, however it is cut.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from satpipe.pipeline.recording_warnings import warning
from satpipe.pipeline.recordings.resample import Samples

SAMPLED_HZ = 1000  # frames that are looked at per second
LONG_S = 60.0  # silence that is worth a warning
HEARD = 1e-3  # of full scale: quieter frames tell nothing about channels
CANCELLED = 0.05  # of the loudest channel: 26 dB
MOSTLY = 0.9  # of the frames that are heard
MIN_HEARD = 100  # frames
FULL_SCALE = 10.0  # float samples may exceed full scale, by a few dB
DEAD, ALIVE = 2.0**-15, 2.0**-9  # range of a channel without sound: a bit of 16; and of one with sound


@dataclass
class Levels:
    """Counts of a part of a recording, at its own rate.

    Attributes:
        rate_hz: Rate of its frames.
        begin: First frame of the part.
        end: Frame after its last one; None for the recording's end.
        low: Smallest sample of each channel.
        high: Largest sample of each channel.
        heard: Frames that were looked at and are not quiet.
        cancelled: Those of them whose channels cancel each other in their mean.
        zeros: Stretches of zeros in all channels, from a frame to a frame: all long ones, and those at the part's ends.
    """

    rate_hz: int
    begin: int = 0
    end: int | None = None
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    heard: int = 0
    cancelled: int = 0
    zeros: list[list[int]] = field(default_factory=list)

    def add(self, block: Samples, at: int) -> None:
        """Count a block [n, channels] that begins at a frame; blocks must follow each other."""
        block = block[max(0, self.begin - at) : None if self.end is None else max(0, self.end - at)]
        at = max(at, self.begin)
        if len(block):
            self._add_silence(block, at)
            # Not every frame: a prime number of frames apart, so that no common tone always shows the same phase.
            step = _next_prime(self.rate_hz // SAMPLED_HZ)
            self._add_levels(np.ascontiguousarray(block[-at % step :: step].T))

    def _add_levels(self, frames: Samples) -> None:
        """Count frames [channels, n]."""
        if not frames.size:
            return
        low, high = frames.min(axis=1).tolist(), frames.max(axis=1).tolist()
        if not all(map(math.isfinite, low + high)):  # NaN stays in both
            self._add_levels(np.where(np.isfinite(frames), frames, np.float32(0)))
            return
        self._add_range(low, high)
        if len(frames) > 1:
            loudest = np.abs(frames).max(axis=0)
            heard = loudest > HEARD
            mean = np.add.reduce(frames, axis=0) / np.float32(len(frames))  # of few rows, faster than `mean`
            self.heard += int(np.count_nonzero(heard))
            self.cancelled += int(np.count_nonzero(heard & (np.abs(mean) < CANCELLED * loudest)))

    def _add_range(self, low: list[float], high: list[float]) -> None:
        self.low = [min(pair) for pair in zip(self.low or low, low or self.low, strict=True)]
        self.high = [max(pair) for pair in zip(self.high or high, high or self.high, strict=True)]

    def _add_silence(self, block: Samples, at: int) -> None:
        # Blocks are much shorter than a long silence, which thus always reaches the end of a block.
        if not (continues := not block[0].any()) and block[-1].any():
            return
        heard = np.flatnonzero(block.any(axis=1))
        end = at + len(block)
        if continues:
            self._add_zeros(at, at + int(heard[0]) if len(heard) else end)
        if len(heard) and heard[-1] < len(block) - 1:
            self._add_zeros(at + int(heard[-1]) + 1, end)

    def _add_zeros(self, begin: int, end: int) -> None:
        if self.zeros and self.zeros[-1][1] == begin:
            self.zeros[-1][1] = end
            return
        if self.zeros and not self._is_long(self.zeros[-1]) and self.zeros[-1][0] != self.begin:
            self.zeros.pop()
        self.zeros.append([begin, end])

    def _is_long(self, stretch: Sequence[int]) -> bool:
        return stretch[1] - stretch[0] > LONG_S * self.rate_hz

    def warnings(self) -> list[str]:
        """Return the warnings of a recording, given its counts from start to end."""
        found = []
        peak = max((abs(value) for value in self.low + self.high), default=0.0)
        if peak > FULL_SCALE:
            found.append(warning("beyond full scale", f"samples reach {peak:,.0f} times full scale"))
        if self.heard >= MIN_HEARD and self.cancelled >= MOSTLY * self.heard:
            share = 100 * self.cancelled // self.heard
            found.append(
                warning("channels cancel", f"their mean is silence in {share} % of the sound; tag one of them")
            )
        ranges = [high - low for low, high in zip(self.low, self.high, strict=True)]
        for number, each in enumerate(ranges, start=1):
            if each <= DEAD and max(ranges) >= ALIVE:
                found.append(warning("dead channel", f"channel {number} of {len(ranges)} has no sound"))
        silent = [stretch for stretch in self.zeros if self._is_long(stretch)]
        if silent:
            total_s = sum(end - begin for begin, end in silent) / self.rate_hz
            first = f"the first from {silent[0][0] / self.rate_hz:.2f} to {silent[0][1] / self.rate_hz:.2f} s"
            found.append(warning("zeros", f"{total_s:.2f} s in stretches longer than {LONG_S:g} s, {first}"))
        return found


def together(parts: Iterable[Levels]) -> Levels | None:
    """Return the counts of a recording, given those of its parts in chronological order; None if there are none."""
    whole = None
    for part in parts:
        if whole is None:
            whole = replace(part, low=[*part.low], high=[*part.high], zeros=[])
        else:
            whole._add_range(part.low, part.high)
            whole.heard += part.heard
            whole.cancelled += part.cancelled
        for begin, end in part.zeros:
            whole._add_zeros(begin, end)
    return whole


def _next_prime(number: int) -> int:
    while any(number % factor == 0 for factor in range(2, int(number**0.5) + 1)):
        number += 1
    return max(1, number)
