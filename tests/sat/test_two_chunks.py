"""The SAT training step: what the plain loop over two chunks gives, in one pass."""

from dataclasses import replace

import pytest
import torch
from helpers import model_by_rule
from satpipe.sat.model.config import get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.training.forward import crop_logits, two_chunk_loss
from satpipe.sat.training.two_chunks import two_chunks
from torch import Tensor
from torch.nn import functional as F


def plain(model: SAT, log_mel: Tensor, labels: Tensor) -> Tensor:
    frames = model.config.chunk_frames
    first, memory = model(log_mel[..., :frames])
    second, _ = model(log_mel[..., frames:], memory)
    return F.binary_cross_entropy((first + second) / 2, labels)


def example(model: SAT, crops: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_mel = torch.randn(crops, 64, 2 * model.config.chunk_frames, generator=generator) * 10 - 20
    return log_mel, torch.rand(crops, 527, generator=generator)


def gradients(model: SAT, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["SAT_T_2s", "SAT_T_1s"])
@pytest.mark.parametrize("depth", [1, 3])
def test_loss_and_gradients_are_those_of_the_plain_loop(name: str, depth: int) -> None:
    model = model_by_rule(replace(get_config(name), depth=depth))
    log_mel, labels = example(model)
    expected = plain(model, log_mel, labels)
    wanted = gradients(model, expected)
    loss = two_chunk_loss(two_chunks(model, log_mel), labels)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    found = gradients(model, loss)
    assert found.keys() == wanted.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)


def test_bf16_is_near_fp32() -> None:
    model = model_by_rule(replace(get_config("SAT_T_2s"), depth=2))
    log_mel, labels = example(model)
    exact, rounded = (two_chunk_loss(two_chunks(model, log_mel, t), labels) for t in (torch.float32, torch.bfloat16))
    torch.testing.assert_close(rounded, exact, atol=0, rtol=0.02)
    found, wanted = gradients(model, rounded), gradients(model, exact)
    cosine = F.cosine_similarity(*(torch.cat([g[n].flatten() for n in wanted]) for g in (found, wanted)), dim=0)
    assert cosine > 0.99


def test_models_with_a_class_token_take_the_plain_way() -> None:
    model = model_by_rule(replace(get_config("SAT_S_2s"), depth=1))
    log_mel, labels = example(model, 2)
    logits = crop_logits(model, log_mel, torch.float32)
    torch.testing.assert_close(two_chunk_loss(logits, labels), plain(model, log_mel, labels), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be trained on two chunks at once"):
        two_chunks(model, log_mel)


def test_a_crop_has_two_whole_chunks() -> None:
    model = model_by_rule(replace(get_config("SAT_T_2s"), depth=1))
    with pytest.raises(ValueError, match="are not two chunks of 192"):
        two_chunks(model, torch.zeros(1, 64, 383))


def test_the_loss_is_finite_where_scores_are_certain() -> None:
    logits = torch.tensor([[[90.0], [90.0]], [[-90.0], [-90.0]]])
    assert float(two_chunk_loss(logits, torch.tensor([[1.0], [0.0]]))) == pytest.approx(0.0, abs=1e-6)
    assert 80 < float(two_chunk_loss(logits, torch.tensor([[0.0], [1.0]]))) < 100
