"""The SAT training step: what the plain loop over the chunks of a sequence gives, in one pass."""

from dataclasses import replace

import pytest
import torch
from helpers import model_by_rule
from satpipe.sat.model.config import get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.training.forward import sequence_logits, sequence_loss
from satpipe.sat.training.sequences import chunk_logits
from torch import Tensor
from torch.nn import functional as F


def plain(model: SAT, log_mel: Tensor, labels: Tensor, *, memory_gradient: bool = False) -> Tensor:
    memory, scores = None, []
    for chunk in log_mel.split(model.config.chunk_frames, -1):
        logits, memory = model.logits(chunk, memory, memory_gradient=memory_gradient)
        scores.append(torch.sigmoid(logits))
    return F.binary_cross_entropy(torch.stack(scores).mean(0), labels)


def example(model: SAT, sequences: int = 3, chunks: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_mel = torch.randn(sequences, 64, chunks * model.config.chunk_frames, generator=generator) * 10 - 20
    return log_mel, torch.rand(sequences, 527, generator=generator)


def gradients(model: SAT, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("memory_gradient", [False, True])
@pytest.mark.parametrize("chunks", [2, 3, 5])
@pytest.mark.parametrize(("name", "depth"), [("SAT_T_2s", 1), ("SAT_T_2s", 3), ("SAT_T_1s", 3)])
def test_loss_and_gradients_are_those_of_the_plain_loop(
    name: str, depth: int, chunks: int, memory_gradient: bool
) -> None:
    model = model_by_rule(replace(get_config(name), depth=depth))
    log_mel, labels = example(model, 2, chunks)
    expected = plain(model, log_mel, labels, memory_gradient=memory_gradient)
    wanted = gradients(model, expected)
    loss = sequence_loss(chunk_logits(model, log_mel, memory_gradient=memory_gradient), labels)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert_close(gradients(model, loss), wanted)


@pytest.mark.parametrize("pass_over", [chunk_logits, sequence_logits])
def test_a_gradient_through_the_memory_reaches_the_chunk_before(pass_over: object) -> None:
    """The last chunk's loss alone, as a function of the first chunk's samples."""
    name = "SAT_T_1s" if pass_over is chunk_logits else "SAT_S_2s"
    model = model_by_rule(replace(get_config(name), depth=2))
    log_mel, _ = example(model, 1, 3)
    reached = []
    for memory_gradient in (False, True):
        inputs = log_mel.clone().requires_grad_()
        logits = pass_over(model, inputs, torch.float32, memory_gradient=memory_gradient)  # type: ignore[operator]
        logits[:, -1].sum().backward()
        assert inputs.grad is not None
        reached.append([bool(chunk.any()) for chunk in inputs.grad.chunk(3, -1)])
    assert reached == [[False, False, True], [True, True, True]]  # two blocks reach two chunks back


def test_bf16_is_near_fp32() -> None:
    model = model_by_rule(replace(get_config("SAT_T_2s"), depth=2))
    log_mel, labels = example(model, chunks=3)
    exact, rounded = (sequence_loss(chunk_logits(model, log_mel, t), labels) for t in (torch.float32, torch.bfloat16))
    torch.testing.assert_close(rounded, exact, atol=0, rtol=0.02)
    found, wanted = gradients(model, rounded), gradients(model, exact)
    cosine = F.cosine_similarity(*(torch.cat([g[n].flatten() for n in wanted]) for g in (found, wanted)), dim=0)
    assert cosine > 0.99


def test_models_with_a_class_token_take_the_plain_way() -> None:
    model = model_by_rule(replace(get_config("SAT_S_2s"), depth=1))
    log_mel, labels = example(model, 2, 3)
    logits = sequence_logits(model, log_mel, torch.float32)
    torch.testing.assert_close(sequence_loss(logits, labels), plain(model, log_mel, labels), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be trained on several chunks at once"):
        chunk_logits(model, log_mel)


@pytest.mark.parametrize("frames", [192, 383])
def test_a_sequence_has_two_whole_chunks_or_more(frames: int) -> None:
    model = model_by_rule(replace(get_config("SAT_T_2s"), depth=1))
    with pytest.raises(ValueError, match=f"{frames} frames are not two or more chunks of 192"):
        chunk_logits(model, torch.zeros(1, 64, frames))


def test_the_loss_weighs_the_sequence_and_its_chunks() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(2, 3, 527, generator=generator), torch.rand(2, 4, 527, generator=generator)
    scores = torch.sigmoid(logits)
    whole = F.binary_cross_entropy(scores.mean(1), labels[:, 0])
    chunks = F.binary_cross_entropy(scores, labels[:, 1:])
    found = sequence_loss(logits, labels, sequence_weight=0.5, chunk_weight=2.0)
    torch.testing.assert_close(found, 0.5 * whole + 2.0 * chunks)
    torch.testing.assert_close(sequence_loss(logits, labels), whole)  # by default that of the paper


def test_the_loss_is_finite_where_scores_are_certain() -> None:
    logits = torch.tensor([[[90.0], [90.0]], [[-90.0], [-90.0]]])
    assert float(sequence_loss(logits, torch.tensor([[1.0], [0.0]]))) == pytest.approx(0.0, abs=1e-6)
    assert 80 < float(sequence_loss(logits, torch.tensor([[0.0], [1.0]]))) < 100
