"""A recording's scores: the same however its samples arrive, are batched, are cut among workers or are interrupted.

The properties are checked on models of three blocks whose chunks are a third of a second, then on three blocks as wide
as the published models.
"""

import doctest
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import satpipe.sat
import satpipe.sat.model.streaming
import torch
from helpers import assert_same_scores, model_by_rule, sound, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_scores_of, exact_scores, exact_scores_of_pieces, in_float64, tolerance
from safetensors.torch import load_file, save_file
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.batching import score_chunks
from satpipe.sat.model.chunk_parallel import consecutive
from satpipe.sat.model.config import (
    CLASSES,
    CONFIGS,
    CUTS,
    HOP_SAMPLES,
    MEL_BANDS,
    PATCH_FRAMES,
    SAMPLE_RATE_HZ,
    Cut,
    ModelConfig,
    get_config,
)
from satpipe.sat.model.cutting import chunk_samples, context_samples, count_chunks
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT, Memory, allows_consecutive
from satpipe.sat.model.streaming import Chunk, ChunkStream, StreamingTagger
from satpipe.sat.weights.registry import load_checkpoint
from small_models import (
    CLASS_TOKEN,
    FULL_CONTEXT,
    LONG_MEMORY,
    SMALL,
    STREAMING,
    TINY,
    WIDE,
    model_of,
)
from torch import Tensor

WITH_MEMORY = [config for config in SMALL + WIDE if config.streaming]

WINDOW_SAMPLES = 512
RECORDING = sound(40_000)  # 2.5 s: 7.8 gapless chunks of the small models, 2.5 in the script cut
LONG_RECORDING = sound(140_000)  # 27.3 and 8.75 chunks

configs = st.sampled_from(SMALL)
cuts = st.sampled_from(CUTS)
lengths = st.integers(0, len(RECORDING)) | st.builds(
    lambda chunks, more: max(0, chunks * TINY.chunk_samples + more), st.integers(0, 7), st.integers(-1, 1)
)
cut_points = st.lists(st.integers(0, len(RECORDING)), max_size=8).map(sorted)
few_examples = settings(max_examples=25, deadline=None)


def named(config: ModelConfig) -> str:
    return config.name


def keyed_chunks(config: ModelConfig, recordings: list[Tensor], cut: Cut) -> Iterator[tuple[Any, Chunk]]:
    for number, recording in enumerate(recordings):
        chunks = ChunkStream(LogMel(), config, cut)
        for chunk in chunks.push(recording) + chunks.finish():
            yield (number, chunk.index), chunk


def batched(model: SAT, recordings: list[Tensor], cut: Cut, batch_chunks: int) -> list[Tensor]:
    """Scores [C, 527] of each recording, computed in batches that span recordings."""
    scores: list[dict[int, Tensor]] = [{} for _ in recordings]
    for (number, index), score in score_chunks(model, keyed_chunks(model.config, recordings, cut), batch_chunks):
        scores[number][index] = score
    return [
        torch.stack([found[index] for index in range(len(found) - (-1 in found))]) if found else torch.empty(0, CLASSES)
        for found in scores
    ]


def changed(recording: Tensor, start: int, end: int | None = None) -> Tensor:
    """The recording with other samples from `start` to `end`."""
    other = recording.clone()
    other[start:end] = sound(len(recording), seed=9)[start:end]
    return other


def distance(scores: Tensor, others: Tensor) -> list[float]:
    """Largest difference in each chunk."""
    return [float(difference) for difference in (scores - others).abs().amax(1)]


@pytest.mark.parametrize("config", SMALL + WIDE, ids=named)
def test_these_models_tell_chunks_apart_so_that_the_other_tests_mean_something(config: ModelConfig) -> None:
    scores = stream(model_of(config), sound(4 * config.chunk_samples))
    assert scores.std(0).mean() > 0.01
    assert 0 < scores.min() < 0.2
    assert 0.8 < scores.max() < 1


# Blocks


@few_examples
@given(config=configs, cut=cuts, length=lengths, points=cut_points)
def test_scores_do_not_depend_on_the_blocks_that_samples_arrive_in(
    config: ModelConfig, cut: Cut, length: int, points: list[int]
) -> None:
    recording = RECORDING[:length]
    scores = stream(model_of(config), recording.tensor_split(points), cut)
    assert_scores_of(model_of(config), recording, scores, cut)
    assert len(scores) == count_chunks(config, cut, length)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", WIDE, ids=named)
def test_scores_of_published_widths_do_not_depend_on_the_blocks(config: ModelConfig, cut: Cut) -> None:
    recording = sound(3 * chunk_samples(config, cut) // 2)
    expected = exact_scores(model_of(config), recording, cut)
    for block_samples in (100, 7777):
        assert_same_scores(stream(model_of(config), recording.split(block_samples), cut), *expected)


def test_one_sample_at_a_time_gives_the_same_scores() -> None:
    recording = RECORDING[: TINY.chunk_samples + 1000]
    assert_scores_of(model_of(TINY), recording, stream(model_of(TINY), recording.split(1)))


def test_a_chunk_is_scored_as_soon_as_the_window_of_its_last_frame_is_full() -> None:
    complete_samples = TINY.chunk_samples - HOP_SAMPLES + WINDOW_SAMPLES // 2
    tagger = StreamingTagger(model_of(TINY))
    assert tagger.push(RECORDING[: complete_samples - 1]).shape == (0, CLASSES)
    assert tagger.push(RECORDING[complete_samples - 1 : complete_samples]).shape == (1, CLASSES)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", SMALL, ids=named)
def test_an_empty_recording_has_no_scores(config: ModelConfig, cut: Cut) -> None:
    assert stream(model_of(config), torch.zeros(0), cut).shape == (0, CLASSES)


# Batches


@few_examples
@given(
    config=configs,
    cut=cuts,
    spans=st.lists(st.tuples(st.integers(0, 5000), lengths), min_size=1, max_size=5),
    batch_chunks=st.integers(1, 40),
)
def test_scores_do_not_depend_on_the_batches_that_chunks_are_in(
    config: ModelConfig, cut: Cut, spans: list[tuple[int, int]], batch_chunks: int
) -> None:
    model = model_of(config)
    recordings = [RECORDING[start : start + length] for start, length in spans]
    for recording, scores in zip(recordings, batched(model, recordings, cut, batch_chunks), strict=True):
        assert_scores_of(model, recording, scores, cut)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", WIDE, ids=named)
def test_scores_of_published_widths_do_not_depend_on_the_batches(config: ModelConfig, cut: Cut) -> None:
    model, chunk = model_of(config), chunk_samples(config, cut)
    longest = sound(5 * chunk // 2)
    recordings = [longest, longest[:2000], longest[1000 : 1000 + 2 * chunk], longest[7 : 8 + chunk], longest[:1]]
    expected = [exact_scores(model, recording, cut) for recording in recordings]
    for batch_chunks in (1, 3, 64):
        for found, exact in zip(batched(model, recordings, cut, batch_chunks), expected, strict=True):
            assert_same_scores(found, *exact)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", SMALL, ids=named)
def test_loud_neighbours_in_a_batch_change_nothing(config: ModelConfig, cut: Cut) -> None:
    model = model_of(config)
    quiet = 1e-4 * RECORDING[:30_000]
    loud = [100 * sound(length, seed=length) for length in (30_000, 500, 17_000)]
    _, amid, *_ = batched(model, [loud[0], quiet, *loud[1:]], cut, 64)
    assert_scores_of(model, quiet, amid, cut)


@pytest.mark.parametrize("config", STREAMING, ids=named)
def test_streams_side_by_side_in_one_call_do_not_see_each_other(config: ModelConfig) -> None:
    model = model_of(config)
    chunks = torch.stack([clamp_dynamic_range(LogMel()(sound(5000, seed))) for seed in range(6)])
    first, second = chunks[:3], chunks[3:]
    _, memory = model(first)
    together, _ = model(second, memory)
    for number in range(3):
        alone, exact = (
            one(second[number : number + 1].to(dtype), one(first[number : number + 1].to(dtype))[1])[0]
            for one, dtype in ((model, torch.float32), (in_float64(model), torch.float64))
        )
        assert_same_scores(together[number : number + 1], exact, tolerance(alone, exact))


def test_a_memory_of_two_chunks_does_not_run_layer_by_layer() -> None:
    assert [config for config in SMALL if allows_consecutive(config)] == [TINY, CLASS_TOKEN]
    with pytest.raises(ValueError, match="cannot run layer by layer"):
        consecutive(model_of(LONG_MEMORY), torch.zeros(2, MEL_BANDS, LONG_MEMORY.chunk_frames))


def test_only_whole_chunks_run_layer_by_layer() -> None:
    with pytest.raises(ValueError, match="31 frames are not a whole chunk of 32"):
        consecutive(model_of(TINY), torch.zeros(2, MEL_BANDS, 31))


# Where a stream starts, and what a score depends on


@few_examples
@given(config=configs, cut=cuts, length=st.integers(0, len(LONG_RECORDING)), data=st.data())
def test_scores_after_the_warm_up_are_those_of_a_stream_from_the_start(
    config: ModelConfig, cut: Cut, length: int, data: st.DataObject
) -> None:
    model, recording = model_of(config), LONG_RECORDING[:length]
    whole, within = exact_scores(model, recording, cut)
    chunk = data.draw(st.integers(0, len(whole)), label="chunk")
    start_chunk = max(0, chunk - config.warmup_chunks)
    start_sample = start_chunk * chunk_samples(config, cut) - context_samples(cut, start_chunk)
    inside = stream(model, recording[start_sample:], cut, start_chunk)
    assert_same_scores(inside[chunk - start_chunk :], whole[chunk:], within)


@pytest.mark.parametrize("config", WIDE, ids=named)
def test_scores_of_published_widths_after_the_warm_up_are_those_from_the_start(config: ModelConfig) -> None:
    model, start_chunk = model_of(config), 1
    recording = sound((start_chunk + config.warmup_chunks) * config.chunk_samples + 5000)
    start_sample = start_chunk * config.chunk_samples - context_samples("gapless", start_chunk)
    inside = stream(model, recording[start_sample:], start_chunk=start_chunk)
    whole, within = exact_scores(model, recording)
    assert_same_scores(inside[config.warmup_chunks :], whole[start_chunk + config.warmup_chunks :], within)
    if config.streaming:
        assert distance(inside[:1], whole[start_chunk : start_chunk + 1])[0] > 0.01  # without its warm-up


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_a_stream_that_starts_at_the_end_of_a_recording_has_no_scores(config: ModelConfig) -> None:
    last_samples = RECORDING[: context_samples("gapless", 3)]
    assert len(stream(model_of(config), last_samples, start_chunk=3)) == 0


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_a_score_depends_on_nothing_after_its_chunk(config: ModelConfig) -> None:
    recording, chunk = RECORDING[: 7 * TINY.chunk_samples], 3
    last_window_end = (chunk + 1) * config.chunk_samples - HOP_SAMPLES + WINDOW_SAMPLES // 2
    moved = distance(stream(model_of(config), recording), stream(model_of(config), changed(recording, last_window_end)))
    assert max(moved[: chunk + 1]) == 0
    assert min(moved[chunk + 1 :]) > 0.01


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_a_score_depends_on_its_warm_up_and_on_nothing_before(config: ModelConfig) -> None:
    recording, chunk = sound(9 * config.chunk_samples), 1
    first_window_start = (chunk + 1) * config.chunk_samples - WINDOW_SAMPLES // 2
    other = changed(recording, chunk * config.chunk_samples, first_window_start)
    moved = distance(stream(model_of(config), recording), stream(model_of(config), other))
    last_seen = chunk + config.warmup_chunks
    assert moved[0] < 0.01  # only its last frames reach into what was changed
    assert min(moved[chunk : last_seen + 1]) > 1e-5
    assert max(moved[last_seen + 1 :]) < 1e-6


@pytest.mark.parametrize("config", [TINY, CLASS_TOKEN], ids=named)
def test_layer_by_layer_a_chunk_reaches_the_scores_it_warms_up_and_no_others(config: ModelConfig) -> None:
    log_mel = torch.stack([clamp_dynamic_range(LogMel()(sound(5000, seed))) for seed in range(8)])
    before, _ = consecutive(model_of(config), log_mel)
    for chunk in range(8):
        other = log_mel.clone()
        other[chunk] += 10 * torch.randn(log_mel.shape[1:])
        moved = distance(before, consecutive(model_of(config), other)[0])
        reached = range(chunk, chunk + config.warmup_chunks + 1)
        assert all((distance > 0) == (place in reached) for place, distance in enumerate(moved))


@pytest.mark.parametrize("config", [TINY, CLASS_TOKEN, WIDE[1]], ids=named)
def test_layer_by_layer_gives_the_memory_after_every_chunk_that_is_asked_for(config: ModelConfig) -> None:
    model = model_of(config)
    log_mel = 10 * torch.randn(7, MEL_BANDS, config.chunk_frames) - 30
    with torch.inference_mode():
        _, before = model(log_mel[:1])
        embeddings, kept = consecutive(model, log_mel[1:], before, first=[2], keep=[0, 2, 5])
        usual_memory, memory, expected = before, in_float64(model)(log_mel[:1].double())[1], []
        for place, chunk in enumerate(log_mel[1:]):
            usual, usual_memory = model(chunk[None], None if place == 2 else usual_memory)
            exact, memory = in_float64(model)(chunk[None].double(), None if place == 2 else memory)
            assert_same_scores(model.scores(embeddings[place : place + 1]), exact, tolerance(usual, exact))
            expected.append((torch.cat(usual_memory.blocks), torch.cat(memory.blocks)))
    for found, place in enumerate((0, 2, 5)):
        ours, (usual, exact) = torch.cat(kept.select(found).blocks), expected[place]
        torch.testing.assert_close(ours, exact, atol=tolerance(usual, exact), rtol=0, check_dtype=False)


def test_layer_by_layer_leaves_its_inputs_and_the_model_alone() -> None:
    model = model_of(TINY)
    log_mel = 10 * torch.randn(3, MEL_BANDS, TINY.chunk_frames) - 30
    with torch.inference_mode():
        _, memory = model(log_mel[:1])
    given = [log_mel, *memory.blocks, *model.state_dict().values()]
    copies = [tensor.clone() for tensor in given]
    consecutive(model, log_mel, memory)
    assert all(map(torch.equal, given, copies))


@pytest.mark.parametrize("config", STREAMING, ids=named)
def test_no_gradient_flows_into_memory(config: ModelConfig) -> None:
    model = model_of(config)
    before, now = (clamp_dynamic_range(LogMel()(sound(5000, seed)))[None].requires_grad_() for seed in range(2))
    _, memory = model(before)
    assert memory is not None
    assert not any(block.requires_grad for block in memory.blocks)
    blocks = [block.clone().requires_grad_() for block in memory.blocks]
    scores, _ = model(now, Memory(blocks))
    to_now, *to_memory = torch.autograd.grad(scores.sum(), [now, *blocks], allow_unused=True)
    assert to_now.abs().max() > 0
    assert all(gradient is None for gradient in to_memory)


def test_digital_silence_and_full_scale_noise_have_finite_scores() -> None:
    for recording in (torch.zeros(20_000), torch.ones(20_000), torch.randn(20_000).sign()):
        for config in SMALL:
            assert stream(model_of(config), recording).isfinite().all()


@pytest.mark.parametrize("frames", [0, 15, 80])
def test_a_chunk_the_model_has_no_positions_for_is_an_error(frames: int) -> None:
    with pytest.raises(ValueError, match=f"tiny reads 16 to 79 frames per chunk, not {frames}"):
        model_of(TINY)(torch.zeros(1, MEL_BANDS, frames))


# Saved and continued


@few_examples
@given(config=configs, cut=cuts, point=st.integers(0, len(RECORDING)))
def test_a_saved_tagger_continues_exactly_as_if_it_had_not_stopped(
    tmp_path_factory: pytest.TempPathFactory, config: ModelConfig, cut: Cut, point: int
) -> None:
    model, path = model_of(config), tmp_path_factory.mktemp("state") / "state.safetensors"
    before, after = RECORDING[:point], RECORDING[point:]
    first = StreamingTagger(model, cut)
    scores = [first.push(before)]
    save_file(first.state_dict(), path)
    second = StreamingTagger(model, cut)
    second.load_state_dict(load_file(path))
    scores += [second.push(after), second.finish()]
    assert torch.equal(torch.cat(scores), stream(model, [before, after], cut))


@pytest.mark.parametrize("config", WIDE, ids=named)
def test_a_saved_tagger_of_a_published_width_continues_exactly(config: ModelConfig, tmp_path: Path) -> None:
    model = model_of(config)
    before, after = sound(5 * config.chunk_samples // 2).tensor_split([4 * config.chunk_samples // 3])
    first = StreamingTagger(model)
    scores = [first.push(before)]
    save_file(first.state_dict(), tmp_path / "state.safetensors")
    second = StreamingTagger(model)
    second.load_state_dict(load_file(tmp_path / "state.safetensors"))
    scores += [second.push(after), second.finish()]
    assert torch.equal(torch.cat(scores), stream(model, [before, after]))


def test_a_state_continues_a_stream_that_started_inside_a_recording() -> None:
    first = StreamingTagger(model_of(TINY), start_chunk=2)
    scores = [first.push(RECORDING[:9000])]
    second = StreamingTagger(model_of(TINY))
    second.load_state_dict(first.state_dict())
    scores += [second.push(RECORDING[9000:]), second.finish()]
    assert torch.equal(torch.cat(scores), stream(model_of(TINY), RECORDING.tensor_split([9000]), start_chunk=2))


def test_a_state_does_not_change_when_its_tagger_goes_on() -> None:
    tagger = StreamingTagger(model_of(TINY))
    tagger.push(RECORDING[:9000])
    state = tagger.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    tagger.push(RECORDING[9000:])
    tagger.finish()
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


# Memory off, and another delay


def with_config(model: SAT, config: ModelConfig) -> SAT:
    """The weights of a model under another configuration."""
    other = SAT(config)
    other.load_state_dict(model.state_dict())
    return other.eval()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", WITH_MEMORY, ids=named)
def test_with_the_memory_off_each_chunk_is_scored_as_if_there_were_no_other(config: ModelConfig, cut: Cut) -> None:
    model, size = model_of(config), chunk_samples(config, cut)
    off = with_config(model, config.without_memory())
    for samples in (4 * size, 7 * size // 2, 3 * size + 1):
        recording = sound(samples)
        expected = exact_scores_of_pieces(model, recording, cut, config.chunk_frames, size)
        assert_same_scores(stream(off, recording, cut), *expected)
        for batch_chunks in (1, 3, 64):
            assert_same_scores(batched(off, [recording], cut, batch_chunks)[0], *expected)
    first, *later = distance(stream(off, sound(4 * size), cut), stream(model, sound(4 * size), cut))
    assert (first < 1e-6) == (cut == "gapless")  # in the script cut the memory holds silence before the first chunk
    assert min(later) > 0.01


@pytest.mark.parametrize("config", STREAMING, ids=named)
def test_a_wrong_memory_changes_scores_by_far_more_than_rounding(config: ModelConfig) -> None:
    model = model_of(config)
    exact, within = exact_scores(model, RECORDING)
    off = stream(with_config(model, config.without_memory()), RECORDING)
    assert min(distance(off[1:], exact[1:])) > 100 * within
    start = 5 * config.chunk_samples - context_samples("gapless", 5)
    late = stream(model, RECORDING[start:], start_chunk=5)  # only the chunks before the sixth are forgotten
    assert distance(late[:1], exact[5:6])[0] > 100 * within


def test_with_the_memory_off_nothing_is_read_before_a_chunk() -> None:
    for config in STREAMING:
        off = config.without_memory()
        assert (off.streaming, off.warmup_chunks) == (False, 0)
        assert replace(off, memory_tokens=config.memory_tokens) == config
        found = ChunkStream(LogMel(), off, "script").push(torch.zeros(40_000))
        assert [chunk.index for chunk in found] == [0, 1]
    assert FULL_CONTEXT.without_memory() == FULL_CONTEXT


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("delay_s", "frames", "tokens"), [(2, 192, 48), (1, 96, 24), (0.5, 48, 12)])
def test_a_full_context_model_with_another_delay_reads_that_much_at_a_time(
    cut: Cut, delay_s: float, frames: int, tokens: int
) -> None:
    model = model_of(WIDE[-1])
    config = model.config.with_delay(delay_s)
    assert (config.chunk_frames, config.chunk_tokens) == (frames, tokens)  # 48 and 24 in the paper's Table 2
    size = chunk_samples(config, cut)
    assert size == (frames * HOP_SAMPLES if cut == "gapless" else delay_s * SAMPLE_RATE_HZ)
    other = with_config(model, config)
    for samples in (3 * size, 5 * size // 2, 2 * size + 1, 1):
        recording = sound(samples)
        expected = exact_scores_of_pieces(model, recording, cut, frames, size)
        assert len(expected[0]) == -(-samples // size)
        assert_same_scores(stream(other, recording, cut), *expected)
        assert_same_scores(batched(other, [recording], cut, 2)[0], *expected)


@few_examples
@given(delay_s=st.floats(0.16, 10.08))
def test_a_chunk_is_as_many_whole_patches_as_fit_into_the_delay(delay_s: float) -> None:
    config = get_config("audiotransformer_tiny").with_delay(delay_s)
    if delay_s != 10:
        assert config.chunk_frames % PATCH_FRAMES == 0
        assert -1 / SAMPLE_RATE_HZ < delay_s - config.chunk_frames / 100 < 0.16 + 1 / SAMPLE_RATE_HZ
    assert chunk_samples(config, "script") == round(delay_s * SAMPLE_RATE_HZ)
    assert 1 <= config.chunk_frames // PATCH_FRAMES <= config.time_positions


@pytest.mark.parametrize("name", CONFIGS)
def test_a_models_own_delay_changes_nothing(name: str) -> None:
    config = get_config(name)
    assert config.with_delay(float(config.script_chunk_s)) is config


def test_a_delay_that_a_model_cannot_have_is_an_error_that_says_why() -> None:
    for name, own_s in (("SAT_T_2s", 2), ("SAT_S_1s", 1)):
        with pytest.raises(ConfigError, match=f"{name} has a delay of {own_s} s, for which its memory was trained"):
            get_config(name).with_delay(1.5)
    for delay_s in (0.0, -2.0, 0.159, 10.081, 1000.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"audiotransformer_tiny must be 0.16 s to 10.08 s, not {delay_s:g} s"):
            get_config("audiotransformer_tiny").with_delay(delay_s)


# The two cuts


@few_examples
@given(samples=st.integers(0, 4 * 30_720))
def test_gapless_chunks_of_a_2_s_model_are_1_92_s(samples: int) -> None:
    config = get_config("SAT_T_2s")
    chunks = ChunkStream(LogMel(), config)
    found = chunks.push(torch.zeros(samples)) + chunks.finish()
    assert [chunk.index for chunk in found] == list(range(-(-samples // 30_720)))
    assert all(chunk.log_mel.shape == (MEL_BANDS, 192) for chunk in found[:-1])
    assert [chunk.first for chunk in found] == [index == 0 for index in range(len(found))]
    if found:  # whole patches of 16 frames, as many as the samples that are left begin
        assert found[-1].log_mel.shape[-1] == 16 * -(-(samples - 30_720 * (len(found) - 1)) // 2560)


@few_examples
@given(samples=st.integers(0, 4 * 32_000))
def test_script_chunks_of_a_2_s_model_are_2_s_after_digital_silence(samples: int) -> None:
    config = get_config("SAT_T_2s")
    chunks = ChunkStream(LogMel(), config, "script")
    found = chunks.push(sound(samples)) + chunks.finish()
    assert [chunk.index for chunk in found] == ([-1] if found else []) + list(range(-(-samples // 32_000)))
    assert [chunk.first for chunk in found] == [chunk.index == -1 for chunk in found]
    if found:
        assert found[0].log_mel.unique().tolist() == pytest.approx([-100])
        assert all(chunk.log_mel.shape == (MEL_BANDS, 192) for chunk in found[:-1])
        assert 16 <= found[-1].log_mel.shape[-1] <= 192


@few_examples
@given(config=configs, length=lengths.filter(bool))
def test_every_sample_to_the_very_last_is_seen_in_the_gapless_cut(config: ModelConfig, length: int) -> None:
    recording = RECORDING[:length].clone()
    scores = stream(model_of(config), recording)
    recording[-1] = 0.9
    moved = distance(scores, stream(model_of(config), recording))
    assert moved[-1] > 1e-4


@pytest.mark.parametrize("tail_samples", [1, 256, 257, 2559])
def test_a_tail_shorter_than_a_patch_is_padded_with_digital_silence(tail_samples: int) -> None:
    for cut in CUTS:
        start = 2 * chunk_samples(TINY, cut)
        recording = sound(start + tail_samples)
        padded = torch.cat([recording, torch.zeros(2560 - tail_samples)])
        scores = stream(model_of(TINY), recording, cut)
        assert len(scores) == 3
        assert_scores_of(model_of(TINY), padded, scores, cut)


def test_frames_past_the_last_whole_patch_of_a_tail_are_not_seen_in_the_script_cut_only() -> None:
    second = 16_000
    recording = sound(second + 4000)  # 26 frames in the tail, so one patch, whose last window ends at 15 * 160 + 256
    seen_samples = second + 15 * HOP_SAMPLES + WINDOW_SAMPLES // 2
    model = model_of(TINY)
    unseen = changed(recording, seen_samples)
    assert distance(stream(model, recording, "script"), stream(model, unseen, "script")) == [0, 0]
    seen = changed(recording, seen_samples - 200)
    assert distance(stream(model, recording, "script"), stream(model, seen, "script"))[1] > 0.001
    assert distance(stream(model, recording), stream(model, unseen))[-1] > 0.01


def test_the_last_80_ms_of_every_2_s_are_not_seen_in_the_script_cut_only() -> None:
    model = model_of(WIDE[0])
    recording = sound(50_000)
    unseen = changed(recording, 191 * HOP_SAMPLES + WINDOW_SAMPLES // 2, 32_000)
    assert max(distance(stream(model, recording, "script"), stream(model, unseen, "script"))) == 0
    assert distance(stream(model, recording), stream(model, unseen))[1] > 0.01


@pytest.mark.parametrize("cut", CUTS)
def test_the_range_of_120_db_is_that_of_each_chunk(cut: Cut) -> None:
    size = chunk_samples(TINY, cut)
    loud_then_silent = torch.cat([100 * sound(size // 4), torch.zeros(size - size // 4)])
    chunks = ChunkStream(LogMel(), TINY, cut)
    loud, silent = (chunks.push(torch.cat([loud_then_silent, torch.zeros(size)])) + chunks.finish())[-2:]
    assert loud.log_mel.min() == loud.log_mel.max() - 120
    assert silent.log_mel.min() == pytest.approx(-100)


def test_no_recording_leaves_memory_to_the_next() -> None:
    for cut in CUTS:
        for config in SMALL:
            recordings = [sound(17_000, seed=1), sound(17_000, seed=2)]
            assert_scores_of(model_of(config), recordings[1], batched(model_of(config), recordings, cut, 64)[1], cut)


# Half precision, and what the package needs


@pytest.mark.slow
def test_bfloat16_scores_of_the_bundled_model_stay_within_a_hundredth() -> None:
    half = load_checkpoint("bundled").model().to_precision(torch.bfloat16)
    full = load_checkpoint("bundled").model()
    seconds = torch.arange(120_000) / 16_000
    chord = torch.sin(2 * torch.pi * torch.tensor([[220], [277.2], [329.6], [1760]]) * seconds).sum(0)
    for recording in (sound(120_000), 0.1 * chord, torch.zeros(40_000)):
        expected = stream(full, recording)
        assert expected.max() > 0.05
        assert_same_scores(stream(half, recording), expected, 0.01)
        assert_same_scores(batched(half, [recording], "gapless", 32)[0], expected, 0.01)


def test_what_stays_in_float32_is_not_rounded() -> None:
    full = model_by_rule(TINY)
    half = model_by_rule(TINY).to_precision(torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.float32, torch.bfloat16}
    for name, tensor in half.state_dict().items():
        if tensor.dtype == torch.float32:
            assert torch.equal(tensor, full.state_dict()[name]), name


def test_a_half_precision_state_is_saved_and_continued_exactly(tmp_path: Path) -> None:
    model = model_by_rule(TINY).to_precision(torch.bfloat16)
    first = StreamingTagger(model)
    scores = [first.push(RECORDING[:20_000])]
    save_file(first.state_dict(), tmp_path / "state.safetensors")
    second = StreamingTagger(model)
    second.load_state_dict(load_file(tmp_path / "state.safetensors"))
    scores += [second.push(RECORDING[20_000:]), second.finish()]
    assert torch.equal(torch.cat(scores), stream(model, RECORDING.tensor_split([20_000])))


@pytest.mark.slow
def test_the_model_runs_where_ray_pyarrow_and_click_are_not_installed() -> None:
    code = """
import importlib, pkgutil, sys
for absent in ("ray", "pyarrow", "click"):
    sys.modules[absent] = None  # importing it raises ImportError
import sat
for module in pkgutil.iter_modules(sat.__path__):
    importlib.import_module(f"sat.{module.name}")
import torch
from satpipe.sat.weights.registry import load_checkpoint
from satpipe.sat.model.streaming import StreamingTagger
print(tuple(StreamingTagger(load_checkpoint("bundled").model()).push(torch.zeros(40_000)).shape))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (finished.returncode, finished.stdout) == (0, "(1, 527)\n"), finished.stderr


def test_the_examples_in_the_documentation_of_streaming_run() -> None:
    for module in (satpipe.sat, satpipe.sat.model.streaming):
        results = doctest.testmod(module)
        assert results.attempted > 0
        assert results.failed == 0
