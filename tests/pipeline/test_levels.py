"""Warnings about levels and silence, however a recording is cut while it is decoded."""

from itertools import pairwise

import numpy as np
import pytest
from audio import Samples, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.pipeline.recordings.levels import Levels, together

RATE_HZ = 100  # a minute has 6,000 frames


def counted(sound: Samples, cuts: set[int], block: int = 1500, rate_hz: int = RATE_HZ) -> Levels:
    """Count a recording in parts, each read in blocks that begin before the part and end after it."""
    bounds = sorted({0, len(sound), *(cut for cut in cuts if cut < len(sound))})
    parts = []
    for begin, end in pairwise(bounds):
        part = Levels(rate_hz, begin, None if end == len(sound) else end)
        for at in range(max(0, begin - 700), min(len(sound), end + 300), block):
            part.add(sound[at : at + block], at)
        parts.append(part)
    whole = together(parts)
    assert whole
    return whole


def long_zeros(sound: Samples) -> list[list[int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ~sound.any(axis=1), [0]])))
    return [[int(begin), int(end)] for begin, end in edges.reshape(-1, 2) if end - begin > 60 * RATE_HZ]


@settings(deadline=None)
@given(
    stretches=st.lists(
        st.tuples(st.integers(1, 9000), st.sampled_from(["sound", "zeros", "one"])), min_size=1, max_size=8
    ),
    cuts=st.sets(st.integers(1, 40_000), max_size=12),
    block=st.integers(200, 1600),
)
def test_counts_do_not_depend_on_where_a_recording_is_cut(
    stretches: list[tuple[int, str]], cuts: set[int], block: int
) -> None:
    sound = noise(sum(length for length, _ in stretches), 2)
    at = 0
    for length, kind in stretches:
        sound[at : at + length, {"sound": [], "zeros": [0, 1], "one": [1]}[kind]] = 0
        at += length
    once, parts = counted(sound, set()), counted(sound, cuts, block)
    assert [each for each in parts.zeros if each[1] - each[0] > 60 * RATE_HZ] == long_zeros(sound)
    assert parts.warnings() == once.warnings()
    assert (parts.low, parts.high, parts.heard, parts.cancelled) == (once.low, once.high, once.heard, once.cancelled)


SOUND = noise(48_000 * 2, 2)
ODD = {
    "channels cancel": SOUND[:, :1] * [1, -1],
    "dead channel": SOUND * [1, 0],
    "beyond full scale": SOUND * 32_767,
}
FAIR = {
    "two channels": SOUND,
    "nearly the same": SOUND[:, :1] + 0.01 * SOUND,
    "hot": SOUND * 4,
    "half the time": np.concatenate([ODD["channels cancel"], SOUND]),
    "one quiet": SOUND * [1, 0.01],
    "silence": SOUND * 0,
    "a tone of 1 kHz": np.tile(np.sin(np.arange(96_000) * 2 * np.pi / 48), (2, 1)).T,
    "one channel": SOUND[:, :1],
}


@pytest.mark.parametrize(("kind", "sound"), ODD.items(), ids=ODD)
def test_what_is_odd_is_a_warning(kind: str, sound: Samples) -> None:
    [text] = counted(sound, {50_000}, 20_000, 48_000).warnings()
    assert text.startswith(f"{kind}: ")


@pytest.mark.parametrize("sound", FAIR.values(), ids=FAIR)
def test_what_is_not_odd_is_no_warning(sound: Samples) -> None:
    assert counted(sound, {50_000}, 20_000, 48_000).warnings() == []
