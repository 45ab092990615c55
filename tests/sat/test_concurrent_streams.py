"""Several streams in one batch, each with the scores it has alone; samples resampled as soon as they can be."""

from itertools import chain

import numpy as np
import pytest
import soxr
import torch
from audio import noise
from helpers import sound, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_scores_of
from satpipe.pipeline.recordings.resample import low_delay, resampled
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import CLASSES, CUTS, Cut, ModelConfig
from small_models import SMALL, TINY, CountingSAT, model_of
from torch import Tensor

LENGTHS = st.integers(0, 40_000)
few_examples = settings(max_examples=20, deadline=None)


def all_scores(tagger: BatchTagger[int], found: dict[int, list[Tensor]]) -> None:
    """Score all that waits, each stream's chunks in order."""
    while any(map(tagger.waits, found)):
        for row in tagger.step():
            assert row.index == len(found[row.stream])
            found[row.stream].append(row.scores)


@few_examples
@given(
    st.sampled_from(SMALL),
    st.sampled_from(CUTS),
    st.lists(LENGTHS, min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_a_stream_among_others_has_the_scores_it_has_alone(
    config: ModelConfig, cut: Cut, lengths: list[int], random: np.random.Generator
) -> None:
    recordings = [sound(length, seed) for seed, length in enumerate(lengths)]
    tagger: BatchTagger[int] = BatchTagger(model_of(config), cut)
    found: dict[int, list[Tensor]] = {key: [] for key in range(len(recordings))}
    at = dict.fromkeys(found, 0)
    blocks: dict[int, list[Tensor]] = {key: [] for key in found}
    while at:
        key = random.choice(sorted(at))
        end = at[key] + random.randint(0, 12_000)
        blocks[key].append(recordings[key][at[key] : end])
        tagger.push(key, blocks[key][-1])
        at[key] = end
        if end >= len(recordings[key]):
            tagger.finish(key)
            del at[key]
        if random.random() < 0.7:
            all_scores(tagger, found)
    all_scores(tagger, found)
    for key in found:
        alone = stream(model_of(config), blocks[key], cut)
        together = torch.stack(found[key]) if found[key] else torch.empty(0, CLASSES)
        if len(recordings) == 1 and cut == "gapless":
            assert torch.equal(together, alone)
        assert_scores_of(model_of(config), recordings[key], together, cut)


def test_streams_share_batches_whatever_their_phase() -> None:
    model = CountingSAT(TINY).eval()
    tagger: BatchTagger[int] = BatchTagger(model)
    for _ in range(12):
        for key in range(5):
            tagger.push(key, torch.zeros(TINY.chunk_samples // 2 + 100 * key))
        tagger.step()
    assert sum(model.batches) >= 5 * 5
    assert max(model.batches) >= 4  # of the five, in steps in which most are ready
    assert len(model.batches) <= sum(model.batches) / 2


def test_after_its_end_a_stream_begins_anew_and_nothing_of_it_is_kept() -> None:
    model = model_of(TINY)
    tagger: BatchTagger[str] = BatchTagger(model)
    for seed in range(2):
        recording = sound(15_000, seed)
        tagger.push("a", recording)
        tagger.finish("a")
        assert tagger.waits("a")
        rows = list(chain.from_iterable(iter(tagger.step, [])))
        assert [row.index for row in rows] == [0, 1, 2]
        assert torch.equal(torch.stack([row.scores for row in rows]), stream(model, recording))
    assert not tagger.waits("a")
    assert not tagger._streams


@pytest.mark.parametrize(
    "rate_hz", [3_999, 4_000, 8_000, 11_025, 16_000, 22_050, 44_056, 44_100, 48_000, 96_000, 192_000]
)
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 20_000), st.lists(st.integers(0, 7_000), max_size=8).map(sorted))
def test_samples_that_come_in_blocks_are_those_of_one_pass(rate_hz: int, length: int, cuts: list[int]) -> None:
    original = noise(length)
    resampler = low_delay(rate_hz)
    blocks = [resampler.push(block) for block in np.split(original, cuts)]
    ours = np.concatenate([*blocks, resampler.finish()])
    whole = soxr.ResampleStream(rate_hz, 16_000, 1, dtype="float32", quality="VHQ").resample_chunk(original, last=True)
    expected = original if rate_hz == 16_000 else whole[: resampled(length, rate_hz)]
    assert len(ours) == len(expected)
    # Rarely one is a rounding away: soxr works on blocks, and these begin elsewhere.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2**-23)


@pytest.mark.parametrize(("rate_hz", "most_ms"), [(8_000, 19), (22_050, 10), (44_100, 10), (48_000, 10), (192_000, 10)])
def test_samples_are_there_within_half_a_filter(rate_hz: int, most_ms: float) -> None:
    resampler, given_samples = low_delay(rate_hz), 0
    for block in np.array_split(noise(rate_hz), 100):
        given_samples += len(resampler.push(block))
    assert 1000 - given_samples / 16 <= most_ms
