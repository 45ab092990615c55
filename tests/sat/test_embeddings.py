"""The embedding of a chunk: what the head reads, in the pass that gives the scores, however that pass is cut."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_scores, model_by_rule, outputs_of_noise, sound
from rounding import in_float64, tolerance
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.batching import score_chunks
from satpipe.sat.model.concurrent_streams import BatchTagger
from satpipe.sat.model.config import CUTS, Cut, ModelConfig
from satpipe.sat.model.cutting import context_samples
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.network import SAT
from satpipe.sat.model.outputs import split
from satpipe.sat.model.streaming import ChunkStream, StreamingTagger
from satpipe.sat.taggers.interface import LoadedExternalTagger, Tagger
from satpipe.sat.taggers.loaded import ExternalConfig
from satpipe.sat.weights.registry import resolve
from small_models import SMALL, TINY, WIDE, efficientat_state, model_of
from torch import Tensor

RECORDING = sound(40_000)


def streamed(model: SAT, recording: Tensor, cut: Cut = "gapless", start_chunk: int = 0) -> tuple[Tensor, Tensor]:
    """Scores [C, 527] and embeddings [C, D] of a recording that arrives in blocks."""
    tagger = StreamingTagger(model, cut, start_chunk, embeddings=True)
    return split(torch.cat([*map(tagger.push, recording.split(7000)), tagger.finish()]))


def batched(model: SAT, recording: Tensor, cut: Cut, batch_chunks: int) -> tuple[Tensor, Tensor]:
    """The same, computed many chunks at a time."""
    chunks = ChunkStream(LogMel(), model.config, cut)
    keyed = ((chunk.index, chunk) for chunk in chunks.push(recording) + chunks.finish())
    rows = [row for index, row in score_chunks(model, keyed, batch_chunks, embeddings=True) if index >= 0]
    return split(torch.stack(rows))


@torch.inference_mode()
def by_definition(model: SAT, recording: Tensor, cut: Cut) -> Tensor:
    """Embeddings [C, D] from the output of the last LayerNorm, chunk by chunk."""
    outputs: list[Tensor] = []
    hook = model.norm.register_forward_hook(lambda _module, _given, normed: outputs.append(normed[0]))
    dtype, memory, places = model.norm.weight.dtype, None, []
    chunks = ChunkStream(LogMel().to(dtype), model.config, cut)
    for chunk in chunks.push(recording) + chunks.finish():
        _, memory = model(chunk.log_mel[None].to(dtype), None if chunk.first else memory)
        places.append(chunk.index)
    hook.remove()
    kept = [tokens for place, tokens in zip(places, outputs, strict=True) if place >= 0]
    return torch.stack([tokens[0] if model.config.class_token else tokens.mean(0) for tokens in kept])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", SMALL + WIDE[:2], ids=lambda config: config.name)
def test_the_embedding_is_what_the_head_reads_in_every_way_to_run_a_model(config: ModelConfig, cut: Cut) -> None:
    model = model_of(config)
    recording = sound(70_000) if config in WIDE else RECORDING
    exact = by_definition(in_float64(model), recording, cut)
    within = tolerance(by_definition(model, recording, cut), exact)
    assert exact.std(0).mean() > 0.01
    for scores, embeddings in (
        streamed(model, recording, cut),
        batched(model, recording, cut, 3),
        batched(model, recording, cut, 64),
    ):
        assert embeddings.dtype == torch.float32
        assert_same_scores(embeddings, exact, within)
        with torch.inference_mode():
            assert_same_scores(model.scores(embeddings), scores, 1e-6)


def test_asking_for_embeddings_does_not_change_a_score() -> None:
    model = model_of(TINY)
    chunks = ChunkStream(LogMel(), TINY)
    keyed = list(enumerate(chunks.push(RECORDING) + chunks.finish()))
    without = torch.stack([scores for _, scores in score_chunks(model, keyed)])
    assert torch.equal(batched(model, RECORDING, "gapless", 32)[0], without)
    plain = StreamingTagger(model)
    assert torch.equal(
        streamed(model, RECORDING)[0], torch.cat([*map(plain.push, RECORDING.split(7000)), plain.finish()])
    )


def test_an_embedding_after_the_warm_up_is_that_of_a_pass_from_the_start() -> None:
    model, start = model_of(TINY), 2
    exact = by_definition(in_float64(model), RECORDING, "gapless")
    within = tolerance(by_definition(model, RECORDING, "gapless"), exact)
    inside = streamed(
        model, RECORDING[start * TINY.chunk_samples - context_samples("gapless", start) :], "gapless", start
    )[1]
    first = TINY.warmup_chunks
    assert_same_scores(inside[first:], exact[start + first :], within)
    assert float((inside[0] - exact[start]).abs().max()) > 0.01  # without its warm-up


@pytest.mark.parametrize("combine", ["geometric", "sharp"])
def test_the_embedding_of_a_stretch_is_the_mean_of_those_of_the_chunks_that_cover_it(combine: Any) -> None:
    config = TINY.with_grids(2, combine)
    model, hop = model_by_rule(config), TINY.chunk_samples // 2
    one_grid = model_of(TINY)
    grids = [
        by_definition(one_grid, RECORDING, "gapless"),
        streamed(one_grid, RECORDING[hop - context_samples("gapless", 1) :], "gapless", 1)[1],
    ]
    chunks = [grids[k % 2][k // 2] for k in range(sum(map(len, grids)))]
    expected = torch.stack([chunks[0], *((before + now) / 2 for before, now in pairwise(chunks))])
    assert_same_scores(streamed(model, RECORDING)[1], expected, 1e-5)


def test_streams_side_by_side_have_the_embeddings_they_have_alone() -> None:
    model = model_of(TINY)
    recordings = {seed: sound(samples, seed) for seed, samples in enumerate((30_000, 12_000))}
    tagger: BatchTagger[int] = BatchTagger(model, embeddings=True)
    found: dict[int, list[Tensor]] = {key: [] for key in recordings}
    for key, recording in recordings.items():
        tagger.push(key, recording)
        tagger.finish(key)
    while any(map(tagger.waits, found)):
        for row in tagger.step():
            found[row.stream].append(row.embedding)
    for key, recording in recordings.items():
        assert_same_scores(torch.stack(found[key]), streamed(model, recording)[1], 1e-5)
    plain: BatchTagger[int] = BatchTagger(model)
    plain.push(0, recordings[0])
    assert plain.step()[0].embedding.shape == (0,)


def test_in_bf16_embeddings_are_float32_and_point_the_same_way() -> None:
    exact = by_definition(model_of(TINY), RECORDING, "gapless")
    rounded = batched(model_by_rule(TINY).to_precision(torch.bfloat16), RECORDING, "gapless", 32)[1]
    assert rounded.dtype == torch.float32
    assert float(torch.cosine_similarity(exact, rounded).min()) > 0.999
    assert not torch.equal(rounded, exact)


def test_efficientats_embedding_is_what_its_last_layer_reads(tmp_path: Path) -> None:
    torch.save(efficientat_state(), tmp_path / "weights.pt")
    loaded = resolve(f"efficientat:{tmp_path / 'weights.pt'}").adapted(1.0)
    assert isinstance(loaded, LoadedExternalTagger)
    tagger, scores, embeddings = outputs_of_noise(loaded)
    model: Any = tagger.model
    with torch.no_grad():
        assert_same_scores(torch.sigmoid(model.classifier[5](embeddings)), scores, 1e-6)


def test_a_tagger_without_embeddings_says_so() -> None:
    class Plain(Tagger):
        def forward(self, waveforms: Tensor) -> Tensor:
            return torch.zeros(len(waveforms), 527)

    config = ExternalConfig("plain", 16_000, 1000, 1000)
    loaded = LoadedExternalTagger(config=config, sha256="", source="", metadata={}, instance=Plain())
    assert loaded.embedding_size == 0
    with pytest.raises(ConfigError, match="plain has no embeddings"):
        loaded.tagger(embeddings=True)


def test_a_checkpoint_knows_the_size_of_its_embeddings() -> None:
    loaded = resolve("bundled")
    assert loaded.embedding_size == loaded.tagger(embeddings=True).embedding_size == 192
    assert replace(loaded).tagger().embeddings is False
