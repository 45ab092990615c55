"""The log-mel front end: what its values mean, and that a stream gives the values of the whole."""

import math

import pytest
import torch
from helpers import sound
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.sat.model.config import HOP_SAMPLES, MEL_BANDS, SAMPLE_RATE_HZ
from satpipe.sat.model.frontend import MIN_SAMPLES, LogMel, LogMelStream, clamp_dynamic_range, mel_filterbank
from torch import Tensor

LOG_MEL = LogMel()
WAVEFORM = sound(6000)
MARGIN_SAMPLES = 256  # half a window: what a stream inside a recording needs before its first frame
TOLERANCE_DB = 1e-4

lengths = st.integers(MIN_SAMPLES, len(WAVEFORM))
cut_points = st.lists(st.integers(0, len(WAVEFORM)), max_size=12).map(sorted)


def tone(frequency_hz: float, samples: int = SAMPLE_RATE_HZ) -> Tensor:
    seconds = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE_HZ
    return torch.cos(2 * math.pi * frequency_hz * seconds).float()


def streamed(blocks: list[Tensor], *, inside: bool = False) -> Tensor:
    stream = LogMelStream(LOG_MEL, inside=inside)
    return torch.cat([*map(stream.push, blocks), stream.finish()], dim=-1)


def assert_same_db(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE_DB, rtol=0)


@settings(deadline=None)
@given(length=lengths, points=cut_points)
def test_a_stream_gives_the_frames_of_the_whole_whatever_the_blocks(length: int, points: list[int]) -> None:
    waveform = WAVEFORM[:length]
    assert_same_db(streamed(list(waveform.tensor_split(points))), LOG_MEL(waveform))


@pytest.mark.parametrize("block_samples", [1, 7, 160, 512, 10**9])
def test_a_stream_gives_the_frames_of_the_whole_for_blocks_of_one_size(block_samples: int) -> None:
    waveform = WAVEFORM[:3000]
    assert_same_db(streamed(list(waveform.split(block_samples))), LOG_MEL(waveform))


@settings(deadline=None)
@given(start_frame=st.integers(2, 30), points=cut_points)
def test_a_stream_that_starts_inside_gives_the_frames_from_there_on(start_frame: int, points: list[int]) -> None:
    blocks = WAVEFORM[start_frame * HOP_SAMPLES - MARGIN_SAMPLES :].tensor_split(points)
    assert_same_db(streamed(list(blocks), inside=True), LOG_MEL(WAVEFORM)[:, start_frame:])


@settings(deadline=None)
@given(point=st.integers(0, len(WAVEFORM)), inside=st.booleans())
def test_a_saved_stream_continues_exactly_as_if_it_had_not_stopped(point: int, inside: bool) -> None:
    before, after = WAVEFORM[:point], WAVEFORM[point:]
    first = LogMelStream(LOG_MEL, inside=inside)
    frames = [first.push(before)]
    second = LogMelStream(LOG_MEL)
    second.load_state_dict(first.state_dict())
    first.push(torch.ones(5000))  # the state that was given away is not the stream's own any more
    frames += [second.push(after), second.finish()]
    torch.testing.assert_close(torch.cat(frames, dim=-1), streamed([before, after], inside=inside), atol=0, rtol=0)


def test_frames_come_as_soon_as_their_window_is_full() -> None:
    stream = LogMelStream(LOG_MEL)
    counts = [stream.push(block).shape[-1] for block in WAVEFORM[:257].split([256, 1])]
    assert counts == [0, 1]  # the first window reaches from 256 before to 255 after sample 0; 257 are there to mirror
    assert stream.push(WAVEFORM[257 : 160 + 256]).shape[-1] == 1


@pytest.mark.parametrize("samples", [0, 1, MIN_SAMPLES - 1])
def test_too_few_samples_to_mirror_are_an_error(samples: int) -> None:
    with pytest.raises(ValueError, match=f"at least 257 samples, not {samples}"):
        LOG_MEL(torch.zeros(samples))
    stream = LogMelStream(LOG_MEL)
    stream.push(torch.zeros(samples))
    with pytest.raises(ValueError, match="at least 257 samples"):
        stream.finish()


def test_just_enough_samples_to_mirror_are_no_error() -> None:
    waveform = WAVEFORM[:MIN_SAMPLES]
    assert LOG_MEL(waveform).shape == (MEL_BANDS, 2)
    assert_same_db(streamed([waveform]), LOG_MEL(waveform))


@given(samples=lengths)
@settings(deadline=None)
def test_there_is_a_frame_every_10_ms_and_one_at_the_end(samples: int) -> None:
    assert LOG_MEL(torch.zeros(samples)).shape == (MEL_BANDS, samples // HOP_SAMPLES + 1)


def test_a_click_is_loudest_in_the_frame_centred_on_it() -> None:
    for frame in (0, 3, 17):
        click = torch.zeros(4000)
        click[frame * HOP_SAMPLES] = 1.0
        assert LOG_MEL(click).sum(0).argmax() == frame


def test_leading_axes_are_kept_and_every_item_is_computed_alone() -> None:
    waveforms = WAVEFORM.reshape(3, 2, 1000)
    together = LOG_MEL(waveforms)
    assert together.shape == (3, 2, MEL_BANDS, 7)
    for row in range(3):
        for column in range(2):
            assert_same_db(together[row, column], LOG_MEL(waveforms[row, column]))


def test_digital_silence_is_minus_100_db() -> None:
    torch.testing.assert_close(LOG_MEL(torch.zeros(4000)), torch.full((MEL_BANDS, 26), -100.0))


def test_a_gain_of_ten_is_20_db() -> None:
    torch.testing.assert_close(LOG_MEL(10 * WAVEFORM), LOG_MEL(WAVEFORM) + 20, atol=1e-3, rtol=0)


# 1000 Hz is 1000 mel on the HTK scale and 8000 Hz 2840 mel, so bands are 2840 / 65 = 43.69 mel apart.
@pytest.mark.parametrize(
    ("frequency_hz", "band"),
    [(125, 3), (440, 12), (1000, 22), (2000, 34), (4000, 48), (7000, 61)],
)
def test_a_tone_peaks_in_the_band_whose_centre_is_nearest_on_the_htk_scale(frequency_hz: float, band: int) -> None:
    assert set(LOG_MEL(tone(frequency_hz))[:, 5:-5].argmax(0).tolist()) == {band}


def test_a_tone_has_the_power_that_a_hann_window_of_512_samples_gives_it() -> None:
    # 1000 Hz is bin 32 exactly: amplitude 256 / 2 there, half of that in the two bins beside it. The filters of
    # neighbouring bands add up to 1, so the power over all bands is 128**2 * (1 + 1/4 + 1/4), 43.9 dB.
    power = (10 ** (LOG_MEL(tone(1000))[:, 5:-5] / 10)).sum(0)
    torch.testing.assert_close(power, torch.full_like(power, 128**2 * 1.5), rtol=1e-4, atol=0)


def test_filters_are_triangles_whose_neighbours_add_up_to_one() -> None:
    filters = mel_filterbank()
    bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, len(filters))
    assert filters.shape == (257, MEL_BANDS)
    assert filters.min() == 0
    assert filters.max() <= 1
    assert filters[[0, -1]].max() < 1e-6  # 0 Hz and 8000 Hz are the outer corners
    first_centre_hz, last_centre_hz = 27.7, 7669.0  # 43.69 mel, and 43.69 mel under 2840 mel
    between = (bins_hz > first_centre_hz) & (bins_hz < last_centre_hz)
    torch.testing.assert_close(filters[between].sum(1), torch.ones(int(between.sum())), atol=1e-5, rtol=0)
    assert (filters[between] > 0).sum(1).max() == 2


def test_values_more_than_120_db_under_the_maximum_are_raised_to_that_level() -> None:
    log_mel = torch.full((MEL_BANDS, 10), -100.0)
    log_mel[3, 4] = 40.0
    log_mel[5, 6] = -70.0
    clamped = clamp_dynamic_range(log_mel)
    assert clamped[3, 4] == 40.0
    assert clamped[5, 6] == -70.0
    assert clamped.min() == clamped[0, 0] == -80.0


def test_values_within_120_db_stay_as_they_are() -> None:
    log_mel = LOG_MEL(WAVEFORM)
    torch.testing.assert_close(clamp_dynamic_range(log_mel), log_mel, atol=0, rtol=0)


def test_the_clamp_of_an_item_does_not_see_its_neighbours() -> None:
    quiet, loud = LOG_MEL(1e-4 * WAVEFORM), LOG_MEL(torch.cat([1e3 * WAVEFORM[:3000], torch.zeros(3000)]))
    alone = clamp_dynamic_range(quiet)
    together = clamp_dynamic_range(torch.stack([quiet, loud]))
    assert loud.max() - 120 > quiet.min()  # so a common clamp would raise something
    torch.testing.assert_close(together[0], alone, atol=0, rtol=0)
    assert together[1].min() == loud.max() - 120
