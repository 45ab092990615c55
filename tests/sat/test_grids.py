"""Interleaved grids: the scores of stretches are those of passes that begin later, wherever a recording is cut."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from audio import recording_of, write
from helpers import assert_same_scores, model_by_rule, sound, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_equal, in_float64, tolerance
from safetensors.torch import load_file, save_file
from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.tagging import tag_spans
from satpipe.pipeline.tagging.spans import Span, spans_of
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import HOP_SAMPLES, PATCH_SAMPLES, Combine, ModelConfig, get_config
from satpipe.sat.model.cutting import count_chunks
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.grids import SMALLEST, combined
from satpipe.sat.model.network import SAT
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.taggers.interface import CPU, Tagger
from satpipe.sat.taggers.loaded import ExternalConfig
from satpipe.sat.taggers.sat import SATTagger
from satpipe.sat.taggers.waveform_chunks import WaveformChunk
from satpipe.sat.weights.registry import load_model, resolve
from small_models import CLASS_TOKEN, FULL_CONTEXT, LONG_MEMORY, MEMORY_OFF, TINY, TWO_SECONDS
from torch import Tensor
from torch.nn.functional import pad

pytestmark = pytest.mark.usefixtures("one_thread")

GRIDS = [config.with_grids(2) for config in (TINY, CLASS_TOKEN, LONG_MEMORY, FULL_CONTEXT, MEMORY_OFF)]
GRIDS += [TWO_SECONDS.with_grids(grids) for grids in (3, 4)]
GRIDS.append(TWO_SECONDS.with_grids(12, "sharp"))
few_examples = settings(max_examples=6, deadline=None)

scores_of_a_stretch = st.integers(1, 12).flatmap(
    lambda chunks: st.lists(
        st.lists(st.floats(0, 1, width=32), min_size=chunks, max_size=chunks), min_size=1, max_size=5
    )
)


@settings(deadline=None)
@given(scores_of_a_stretch)
def test_the_score_of_a_stretch_is_the_geometric_mean_within_the_range_of_its_chunks(
    columns: list[list[float]],
) -> None:
    scores = torch.tensor(columns).T
    result = combined(scores)
    assert bool(((scores.amin(0) <= result) & (result <= scores.amax(0))).all())
    exact = np.exp(np.log(np.maximum(scores.double().numpy(), SMALLEST)).mean(0))
    np.testing.assert_allclose(result, np.minimum(exact, scores.amax(0).double().numpy()), rtol=1e-4, atol=SMALLEST)
    assert_same_scores(combined(scores.flip(0)), result, 1e-6)
    lowest = scores.amin(0).clamp_min(SMALLEST).double().numpy()
    sharp = np.sqrt(exact * lowest).clip(scores.amin(0).numpy(), scores.amax(0).numpy())
    np.testing.assert_allclose(combined(scores, "sharp"), sharp, rtol=1e-4, atol=SMALLEST)


@settings(deadline=None)
@given(scores_of_a_stretch)
def test_half_precision_changes_the_score_of_a_stretch_by_its_rounding_only(columns: list[list[float]]) -> None:
    scores = torch.tensor(columns).T
    result = combined(scores.half())
    assert result.dtype == torch.float32
    near = torch.where(scores < 2.0**-14, scores.half().float(), scores)  # there half precision has fewer digits
    torch.testing.assert_close(result, combined(near), rtol=2**-10, atol=2**-24)


def test_equal_scores_are_their_own_mean_and_a_zero_does_not_rule_a_class_out() -> None:
    score = torch.rand(1, 527, generator=torch.Generator().manual_seed(0)) ** 4
    for combine in get_args(Combine):
        assert torch.equal(combined(score.repeat(12, 1), combine), score[0])
        assert torch.equal(combined(torch.zeros(3, 2), combine), torch.zeros(2))
    assert combined(torch.tensor([[0.0], [0.9]])).item() == pytest.approx((SMALLEST * 0.9) ** 0.5, rel=1e-4)


@torch.inference_mode()
def passes(model: SAT, recording: Tensor, grids: int) -> list[Tensor]:
    """The scores [C, 527] of each grid by itself: the frames from its start on, a chunk at a time, with memory."""
    dtype, frames = model.norm.weight.dtype, model.config.chunk_frames
    padded = pad(recording.to(dtype), (0, -len(recording) % PATCH_SAMPLES))
    log_mel = LogMel().to(dtype)(padded)[:, : len(padded) // HOP_SAMPLES]
    found = []
    for grid in range(grids):
        memory, scores = None, [torch.empty(0, 527, dtype=dtype)]
        later = log_mel[:, grid * frames // grids :]
        for chunk in later.split(frames, dim=-1) if later.shape[-1] else ():
            score, memory = model(clamp_dynamic_range(chunk)[None], memory)
            scores.append(score)
        found.append(torch.cat(scores))
    return found


def stretches(model: SAT, recording: Tensor) -> Tensor:
    """The scores of the stretches [C, 527] by another way than the product's."""
    grids = model.config.grids
    by_grid = passes(model, recording, grids)
    rows = []
    for stretch in range(sum(map(len, by_grid))):
        covering = range(max(0, stretch - grids + 1), stretch + 1)
        scores = [by_grid[chunk % grids][chunk // grids].double().numpy() for chunk in covering]
        logs = np.log(np.maximum(scores, SMALLEST))
        mean = logs.mean(0) if model.config.combine == "geometric" else (logs.mean(0) + logs.min(0)) / 2
        rows.append(np.exp(mean))
    return torch.from_numpy(np.array(rows).reshape(-1, 527))


@cache
def model_of(config: ModelConfig) -> SAT:
    return model_by_rule(config)


def expected(config: ModelConfig, recording: Tensor) -> tuple[Tensor, float]:
    """The scores of the stretches in float64, and the tolerance for float32."""
    exact = stretches(in_float64(model_of(config)), recording)
    return exact, tolerance(stretches(model_of(config), recording), exact)


@pytest.mark.parametrize("config", GRIDS, ids=lambda config: f"{config.name}, {config.grids}")
@few_examples
@given(st.integers(257, 70_000), st.integers(500, 40_000))
def test_streamed_stretches_are_those_of_passes_that_begin_later(config: ModelConfig, samples: int, block: int) -> None:
    recording = sound(samples)
    scores = stream(model_of(config), recording.split(block))
    assert len(scores) == count_chunks(config, "gapless", samples)
    assert_same_scores(scores, *expected(config, recording))


def test_the_stretches_of_a_recording_differ_and_do_so_from_its_chunks() -> None:
    recording = sound(160_000)
    scores = stream(model_of(TWO_SECONDS.with_grids(4)), recording)
    chunks = stream(model_of(TWO_SECONDS), recording)
    assert float((scores[1:] - scores[:-1]).abs().max(1).values.min()) > 1e-3
    assert torch.equal(scores[0], chunks[0])  # only one chunk covers the first stretch
    assert float((scores[4::4][:4] - chunks[1:5]).abs().max(1).values.min()) > 1e-3


def test_streams_side_by_side_have_the_stretches_they_have_alone() -> None:
    config = TWO_SECONDS.with_grids(4)
    recordings = {seed: sound(samples, seed) for seed, samples in enumerate((70_000, 31_000, 5_000))}
    tagger: BatchTagger[int] = BatchTagger(model_of(config))
    found: dict[int, list[Tensor]] = {key: [] for key in recordings}
    for key, recording in recordings.items():
        for block in recording.split(9_000):
            tagger.push(key, block)
        tagger.finish(key)
    while any(map(tagger.waits, found)):
        for row in tagger.step():
            assert row.index == len(found[row.stream])
            found[row.stream].append(row.scores)
    for key, recording in recordings.items():
        assert_same_scores(torch.stack(found[key]), *expected(config, recording))


@pytest.mark.parametrize("config", [TINY.with_grids(2), TWO_SECONDS.with_grids(12), MEMORY_OFF.with_grids(2)])
@pytest.mark.parametrize("start_chunk", [0, 5])
def test_a_saved_tagger_continues_with_its_stretches(tmp_path: Path, config: ModelConfig, start_chunk: int) -> None:
    blocks = sound(100_000).split(7_000)
    whole = StreamingTagger(model_of(config), start_chunk=start_chunk)
    usual = torch.cat([*map(whole.push, blocks), whole.finish()])
    for stop in (1, 4, 9):
        first, second = (StreamingTagger(model_of(config), start_chunk=start_chunk) for _ in range(2))
        before = [first.push(block) for block in blocks[:stop]]
        save_file(first.state_dict(), tmp_path / "state.safetensors")
        second.load_state_dict(load_file(tmp_path / "state.safetensors"))
        after = [second.push(block) for block in blocks[stop:]]
        assert torch.equal(torch.cat([*before, *after, second.finish()]), usual)


def tagged(task: list[Span], tagger: Tagger) -> tuple[list[int], Tensor]:
    tables: list[pa.Table] = []
    tag_spans.tag_task(task, tagger, tables.append)
    chunks = [chunk for table in tables for chunk in table["chunk"].to_pylist()]
    return chunks, torch.from_numpy(np.concatenate([np.array(table["scores"].to_pylist()) for table in tables]))


@few_examples
@given(
    st.sampled_from(GRIDS),
    st.lists(st.integers(1, 30), max_size=4),
    st.integers(257, 120_000),
    st.sampled_from([1, 3, 32]),
)
def test_stretches_do_not_depend_on_where_a_recording_is_cut_or_on_batches(
    tmp_path_factory: pytest.TempPathFactory, config: ModelConfig, bounds: list[int], samples: int, batch: int
) -> None:
    waveform = sound(samples) / 4
    path = write(tmp_path_factory.mktemp("any") / "a.wav", waveform.numpy(), subtype="FLOAT")
    recording = recording_of(path)
    count = count_chunks(config, "gapless", samples)
    starts = [0, *sorted({bound for bound in bounds if bound < count})]
    spans = [Span(recording, start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    tagger = SATTagger(model_of(config), batch_chunks=batch)
    chunks, scores = tagged(spans, tagger)
    assert chunks == list(range(count))
    exact, within = expected(config, waveform)
    assert_same_scores(scores, exact, within)
    assert_equal(scores, tagged([Span(recording)], SATTagger(model_of(config)))[1], within)


class Before(Tagger):
    """The first class has the level of a chunk, the second that of the chunk before it on its grid."""

    rate_hz = 22_050
    warmup_chunks = 1

    def forward(self, waveforms: Tensor) -> Tensor:
        scores = torch.zeros(len(waveforms), 527)
        scores[:, 0] = waveforms.square().mean(1).sqrt()
        return scores

    def score(self, chunks: Iterable[tuple[Any, WaveformChunk]]) -> Iterator[tuple[Any, Tensor]]:
        before = torch.tensor(0.0)
        for key, chunk in chunks:
            score = self.scores(chunk.waveform[None])[0]
            score[1] = 0.0 if chunk.first else before
            before = score[0].clone()
            yield key, score


def peer(grids: int) -> Tagger:
    config = ExternalConfig("peer", 22_050, 10_000, 10_000, warmup_chunks=1).with_delay(1.6).with_grids(grids)
    return Before().prepared(config, CPU, "fp32", None)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return recording_of(write(tmp_path / "a.wav", sound(int(11.1 * 22_050)).numpy() / 4, 22_050, subtype="FLOAT"))


def test_any_tagger_has_grids_and_a_memory_for_each(recording: Recording) -> None:
    hop, chunk = 22_050 * 4 // 10, 22_050 * 16 // 10
    waveform = sound(int(11.1 * 22_050)) / 4
    level = [float(waveform[start : start + chunk].square().mean().sqrt()) for start in range(0, len(waveform), hop)]
    before = [0.0] * 4 + level[:-4]
    chunks, scores = tagged([Span(recording)], peer(4))
    assert chunks == list(range(len(level))) == list(range(28))
    for column, values in enumerate((level, before)):
        exact = [np.exp(np.log(np.maximum(values[max(0, k - 3) : k + 1], SMALLEST)).mean()) for k in range(28)]
        assert_same_scores(scores[4:, column], torch.tensor(exact)[4:], 1e-5)
    spans = spans_of(recording, peer(4).config, "gapless", 3.0)
    assert len(spans) > 3
    assert_same_scores(tagged(spans, peer(4))[1], scores, 1e-6)


def test_what_cannot_be_read_on_several_grids_is_an_error_that_says_why() -> None:
    cases = [
        (lambda: get_config("SAT_T_2s").with_grids(5), "12 patches of a chunk of SAT_T_2s: 1, 2, 3, 4, 6 or 12, not 5"),
        (lambda: get_config("SAT_B_1s").with_grids(12), "6 patches of a chunk of SAT_B_1s: 1, 2, 3 or 6, not 12"),
        (
            lambda: replace(TINY, chunk_frames=40).with_grids(2),
            "whole patches of 16 frames; those of tiny have 40 frames",
        ),
        (lambda: peer(7), "1600 ms of a chunk of peer: 1, 2, 4, 5, 8 or 10, not 7"),
        (lambda: ExternalConfig("x", 22_050, 500, 500).with_grids(2), "500 ms of a chunk of x: 1, not 2"),
        (
            lambda: resolve("htsat", random=True).adapted(grids=2),
            "htsat reads 10 s at once: --grids also needs --delay-s",
        ),
        (lambda: load_model("bundled", grids=7), "1, 2, 3, 4, 6 or 12, not 7"),
    ]
    for attempt, message in cases:
        with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
            attempt()
