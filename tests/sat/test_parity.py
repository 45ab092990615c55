"""The same numbers as the published implementation gives, for all nine configurations.

`parity/*.npz` hold its outputs, `parity/*.shapes.json` the names and shapes of its weights, which `helpers` draws by
rule from each tensor's name.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from helpers import (
    PARITY,
    assert_same_scores,
    chunk_by_chunk,
    parity_model,
    parity_outputs,
    parity_waveform,
)
from rounding import in_float64, tolerance
from satpipe.sat.model.batching import score_chunks
from satpipe.sat.model.config import CONFIGS, SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.model.streaming import ChunkStream, StreamingTagger
from satpipe.sat.weights.checkpoint import published_shapes
from torch import Tensor

LOG_MEL_TOLERANCE_DB = 1e-3
AUDIBLE_DB = -80.0  # under it the rounding of the FFT shows
PUBLISHED_PIECE_FRAMES = 1012  # of the full-context models


def wide_ones_slow(names: list[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.slow) if get_config(name).width > 192 else name for name in names]


STREAMING = wide_ones_slow([name for name, config in CONFIGS.items() if config.streaming])
EMPTY_AT_THE_START = wide_ones_slow(  # the published code always warms the memory of SAT_S_1s
    [name for name, config in CONFIGS.items() if config.streaming and name != "SAT_S_1s"]
)
FULL_CONTEXT = wide_ones_slow([name for name, config in CONFIGS.items() if not config.streaming])


@pytest.fixture(scope="module", params=STREAMING)
def streaming(request: pytest.FixtureRequest) -> SAT:
    return parity_model(request.param)


@pytest.fixture(scope="module", params=FULL_CONTEXT)
def full_context(request: pytest.FixtureRequest) -> SAT:
    return parity_model(request.param)


@lru_cache(maxsize=1)
def streamed(name: str) -> tuple[Tensor, Tensor]:
    """Scores of that waveform in the script cut, and the memory after it (empty for a full-context model)."""
    tagger = StreamingTagger(parity_model(name), "script")
    scores = torch.cat([tagger.push(parity_waveform()), tagger.finish()])
    blocks = [tensor for key, tensor in tagger.state_dict().items() if key.startswith("memory.")]
    return scores, torch.cat(blocks or [torch.empty(0)])


@lru_cache(maxsize=1)
def tolerances(name: str) -> tuple[float, float]:
    """By how much rounding may change scores and memory values of the waveform that the published code was given."""
    usual, usual_memory = streamed(name)
    exact, memory = chunk_by_chunk(in_float64(parity_model(name)), parity_waveform(), "script")
    return tolerance(usual, exact), tolerance(usual_memory, torch.cat(memory.blocks)) if memory else 0.0


def assert_published_scores(model: SAT, scores: Tensor, published: Tensor) -> None:
    assert_same_scores(scores, published, tolerances(model.config.name)[0])


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def log_mel_of(waveform: Tensor) -> Tensor:
    return clamp_dynamic_range(LogMel()(waveform))


@pytest.mark.parametrize("name", CONFIGS)
def test_tensor_names_and_shapes_are_the_published_ones(name: str) -> None:
    published = json.loads((PARITY / f"{name}.shapes.json").read_text(encoding="utf-8"))
    assert published_shapes(get_config(name)) == {tensor: tuple(shape) for tensor, shape in published.items()}


def test_streaming_in_the_script_cut_gives_the_scores_of_the_published_script(streaming: SAT) -> None:
    expected = parity_outputs(streaming.config.name)["scores"]
    assert_published_scores(streaming, streamed(streaming.config.name)[0], expected)


def test_batches_in_the_script_cut_give_the_scores_of_the_published_script(streaming: SAT) -> None:
    chunks = ChunkStream(LogMel(), streaming.config, "script")
    keyed = [(chunk.index, chunk) for chunk in chunks.push(parity_waveform()) + chunks.finish()]
    scores = torch.stack([scores for index, scores in score_chunks(streaming, keyed) if index >= 0])
    assert_published_scores(streaming, scores, parity_outputs(streaming.config.name)["scores"])


def test_memory_after_the_last_chunk_is_the_published_one(streaming: SAT) -> None:
    _, memory = streamed(streaming.config.name)
    expected = parity_outputs(streaming.config.name)["final_cache"]
    torch.testing.assert_close(memory[:, ::7, ::11], expected, atol=tolerances(streaming.config.name)[1], rtol=0)


def test_memory_after_digital_silence_is_the_published_one(streaming: SAT) -> None:
    silence, *_ = ChunkStream(LogMel(), streaming.config, "script").push(parity_waveform())
    _, memory = streaming(silence.log_mel[None])
    means = torch.stack([block.mean() for block in memory.blocks])
    expected = parity_outputs(streaming.config.name)["silence_cache_mean"]
    torch.testing.assert_close(means, expected, atol=tolerances(streaming.config.name)[1], rtol=0)


@pytest.mark.parametrize("streaming", EMPTY_AT_THE_START, indirect=True)
def test_scores_with_an_empty_memory_at_the_start_are_the_published_ones(streaming: SAT) -> None:
    expected = parity_outputs(streaming.config.name)["scores_without_memory_start"]
    chunks = ChunkStream(LogMel(), streaming.config, "script")
    heard = [chunk for chunk in chunks.push(parity_waveform()) + chunks.finish() if chunk.index >= 0]
    keyed = [(chunk.index, replace(chunk, first=chunk.index == 0)) for chunk in heard]
    scores = torch.stack([scores for _, scores in score_chunks(streaming, keyed)])
    assert_published_scores(streaming, scores, expected)


def test_scores_averaged_over_a_clip_of_two_chunks_are_the_published_ones(streaming: SAT) -> None:
    config = streaming.config
    clip = log_mel_of(parity_waveform()[: 2 * config.script_chunk_s * SAMPLE_RATE_HZ])
    declared_frames = config.memory_tokens // 4 * 16  # of a chunk; SAT_S_1s is declared with 2 s
    memory, scores = None, []
    for piece in clip.split(declared_frames, dim=-1):
        if piece.shape[-1] == declared_frames:
            score, memory = streaming(piece[None], memory)
            scores.append(score)
    expected = parity_outputs(config.name)["scores_two_chunk_clip"]
    assert_published_scores(streaming, torch.cat(scores).mean(0), expected)


@pytest.mark.parametrize("seconds", [10, 2])
def test_full_context_pieces_give_the_published_scores(full_context: SAT, seconds: int) -> None:
    config = full_context.config.with_delay(seconds)
    chunks = ChunkStream(LogMel(), config, "script")
    keyed = [(chunk.index, chunk) for chunk in chunks.push(parity_waveform()) + chunks.finish()]
    batched = torch.stack([scores for _, scores in score_chunks(full_context, keyed)])
    expected = parity_outputs(config.name)[f"scores_{seconds}s"]
    assert_published_scores(full_context, batched, expected)


def test_streaming_a_full_context_model_in_the_script_cut_reads_10_s_at_a_time(full_context: SAT) -> None:
    expected = parity_outputs(full_context.config.name)["scores_10s"]
    assert_published_scores(full_context, streamed(full_context.config.name)[0], expected)


def test_full_context_scores_of_one_long_clip_are_the_published_ones(full_context: SAT) -> None:
    norm = full_context.init_bn
    zero_db = norm.running_mean - norm.bias / norm.weight * (norm.running_var + norm.eps).sqrt()  # normalised to 0
    log_mel = log_mel_of(parity_waveform())
    missing = -log_mel.shape[-1] % PUBLISHED_PIECE_FRAMES
    padded = torch.cat([log_mel, zero_db[:, None].expand(-1, missing)], dim=-1)
    pieces = torch.stack(padded.split(PUBLISHED_PIECE_FRAMES, dim=-1))
    scores, _ = full_context(pieces)
    expected = parity_outputs(full_context.config.name)["scores_whole_21_7s"]
    assert_published_scores(full_context, scores.mean(0), expected)


def test_log_mel_values_are_the_published_ones() -> None:
    two_seconds = 2 * SAMPLE_RATE_HZ
    waveform = parity_waveform()
    expected = parity_outputs("frontend")
    pieces = waveform[: 10 * two_seconds].reshape(10, two_seconds)
    for found, published in (
        (log_mel_of(waveform[:two_seconds]), expected["log_mel_first_2s"]),
        (log_mel_of(pieces), expected["log_mel_chunks"]),
        (log_mel_of(torch.zeros(two_seconds)), expected["log_mel_zeros_2s"]),
    ):
        audible = published > AUDIBLE_DB
        torch.testing.assert_close(found[audible], published[audible], atol=LOG_MEL_TOLERANCE_DB, rtol=0)
        assert (found[~audible] < AUDIBLE_DB + LOG_MEL_TOLERANCE_DB).all()


def test_digital_silence_is_the_published_one() -> None:
    expected = parity_outputs("frontend")["log_mel_zeros_2s"]
    torch.testing.assert_close(log_mel_of(torch.zeros(2 * SAMPLE_RATE_HZ)), expected, atol=1e-4, rtol=0)
