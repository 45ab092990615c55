"""The way to a GPU, as far as it can be walked without one (tensors of another device, stubs of CUDA), and with one."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, Satpipe
from helpers import model_by_rule, sound
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.plan import plan
from satpipe.jobs.train.config import load_config
from satpipe.jobs.train.objective import Objective
from satpipe.pipeline import local_ray, ray_engine
from satpipe.pipeline.ray_engine import sharing
from satpipe.pipeline.tagging.worker import WorkerOptions, make_tagger
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.batching import BATCH_CHUNKS, GPU_BATCH_CHUNKS, score_chunks
from satpipe.sat.model.chunk_parallel import consecutive
from satpipe.sat.model.config import CLASSES, CUTS, MEL_BANDS, Cut, ModelConfig, get_config
from satpipe.sat.model.frontend import LogMel, to_device
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.model.streaming import ChunkStream
from satpipe.sat.weights.checkpoint import Checkpoint
from small_models import efficientat_state
from torch import Tensor, nn

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda:0"), torch.device("meta")
SMALL = replace(get_config("SAT_T_2s"), name="small", width=24, heads=2, depth=3)
CONFIGS = [SMALL, replace(SMALL, class_token=True), SMALL.without_memory(), get_config("SAT_S_1s")]


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_from_samples_to_scores_nothing_but_both_ends_is_off_the_device(
    monkeypatch: pytest.MonkeyPatch, config: ModelConfig, cut: Cut
) -> None:
    """Meta tensors have no values, but do not mix with those of another device, as those of a GPU."""
    monkeypatch.setattr(Tensor, "cpu", lambda scores: torch.zeros(scores.shape))
    model, log_mel = SAT(config).eval().to(META), LogMel().to(META)
    keyed = []
    for samples in (200_000, 70_000, 1000):
        chunks = ChunkStream(log_mel, config, cut)
        keyed += [(chunk.index, chunk) for chunk in chunks.push(sound(samples)) + chunks.finish()]
    assert {chunk.log_mel.device for _, chunk in keyed} == {META}
    scores = [score for _, score in score_chunks(model, keyed, 4, device=META)]
    assert len(scores) == len(keyed) > 8
    assert {(score.device, score.shape) for score in scores} == {(CPU, (527,))}


def test_what_goes_to_a_gpu_is_pinned_and_waited_for_by_nobody() -> None:
    calls: list[Any] = []
    pinned = SimpleNamespace(to=lambda device, **options: calls.append((device, options)))
    to_device(SimpleNamespace(device=CPU, pin_memory=lambda: pinned), CUDA)  # type: ignore[arg-type]
    assert calls == [(CUDA, {"non_blocking": True})]
    samples = sound(100)
    assert to_device(samples, CPU) is samples


def test_fp16_changes_no_score_by_more_than_a_hundredth() -> None:
    log_mel = 10 * torch.randn(4, MEL_BANDS, SMALL.chunk_frames) - 30
    models = model_by_rule(SMALL), model_by_rule(SMALL).to_precision(torch.float16)
    expected, found = (model.scores(consecutive(model, log_mel)[0]) for model in models)
    assert 0 < (found.float() - expected).abs().max() < 0.01


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers"), [(16, 1, 8), (4, 1, 4), (8, 4, 2), (6, 1, 4), (3, 2, 1), (1, 4, 1), (0, 1, 1)]
)
def test_as_many_workers_share_a_gpu_as_have_a_processor_each(cpus: float, gpus: float, workers: int) -> None:
    assert sharing(cpus, gpus) == workers


@pytest.mark.parametrize(("device", "share", "width"), [("auto", 0.25, 8), ("cpu", 0, 8)])
def test_work_is_handed_out_in_shares_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, share: float, width: int
) -> None:
    monkeypatch.setattr(ray_engine, "ray", SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0, "GPU": 2.0}))
    monkeypatch.setattr(local_ray, "others", lambda: True)  # the user has started it
    with ray_engine.start(None, None, device) as started:
        assert (started.gpus, started.width) == (share, width)


@pytest.mark.parametrize(
    ("cuda", "precision", "batch", "dtype"),
    [
        (True, "fp32", GPU_BATCH_CHUNKS, torch.float32),
        (True, "bf16", GPU_BATCH_CHUNKS, torch.bfloat16),
        (True, "fp16", GPU_BATCH_CHUNKS, torch.float16),
        (False, "bf16", BATCH_CHUNKS, torch.bfloat16),
    ],
)
def test_a_worker_takes_the_batch_of_its_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, precision: str, batch: int, dtype: torch.dtype
) -> None:
    moved: list[torch.device] = []

    def to(module: nn.Module, target: Any) -> nn.Module:
        if isinstance(target, torch.dtype):
            return module._apply(lambda tensor: tensor.to(target) if tensor.is_floating_point() else tensor)
        moved.append(target)
        return module

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    threads = torch.get_num_threads()
    checkpoint = Checkpoint.of(model_by_rule(SMALL))
    made = make_tagger(checkpoint, WorkerOptions("", "abc", SMALL, "gapless", precision, cuda))
    torch.set_num_threads(threads)
    assert {device.type for device in moved} == {made.device.type} == {"cuda" if cuda else "cpu"}
    assert (made.batch_chunks, made.model.patch_embed.weight.dtype) == (batch, dtype)
    assert made.model.init_bn.weight.dtype == torch.float32


def test_a_precision_that_the_device_is_not_made_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ConfigError, match="Tesla T4 does not support bf16; use --precision fp16"):
        dtype_for("bf16", CUDA)
    assert dtype_for("fp16", CUDA) == torch.float16
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        dtype_for("fp16", CPU)
    with pytest.raises(ConfigError, match="--precision must be one of fp32, bf16, fp16, not 'int4'"):
        dtype_for("int4", CPU)
    with pytest.raises(ConfigError, match="needs --device cuda"):
        plan(TagOptions(("examples/recordings",), "out", precision="fp16"))


SEQUENCES = ("sequence_chunks=5", "memory_gradient=true", "chunk_weight=0.5")


@pytest.mark.parametrize("given", [(), SEQUENCES])
def test_a_step_is_recorded_in_the_shape_of_a_batch_and_without_waiting_for_the_device(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """A recording fails where a kernel's result decides what comes next; so do meta tensors, which have no values."""
    recorded: list[tuple[nn.Module, tuple[Tensor, ...]]] = []
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *both: recorded.append(both))
    settings = load_config(
        "sat", "sat_tiny_2s", ["data=none", "labels=none", "precision=fp32", "average_best=1", *given]
    )
    objective = Objective(settings).to(META).train()
    objective.record(3)
    ((module, inputs),) = recorded
    chunks = settings.sequence_chunks
    labels = (3, 1 + chunks, CLASSES) if given else (3, CLASSES)
    assert [tensor.shape for tensor in inputs] == [(3, MEL_BANDS, chunks * 192), labels]
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # torch has none for meta tensors
    loss = module(*inputs)
    assert loss.shape == ()
    loss.backward()
    assert all(p.grad is not None and p.grad.device == META for p in objective.tagger.parameters())


with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="run on a machine with a GPU and torch with CUDA")


@with_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("given", [("input_norm=batch",), ("input_norm=fixed",), SEQUENCES])
def test_a_recorded_step_is_the_step(precision: str, given: tuple[str, ...]) -> None:
    chosen = ["data=none", "labels=none", "average_best=1", f"precision={precision}", *given]
    settings = load_config("sat", "sat_tiny_2s", chosen)
    chunks = settings.sequence_chunks
    recorded, plain = (Objective(settings).to(CUDA).train() for _ in range(2))
    plain.load_state_dict(recorded.state_dict())
    recorded.record(4)
    for name, tensor in plain.state_dict().items():
        assert bool((recorded.state_dict()[name] == tensor).all()), name
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        log_mel = 10 * torch.randn(4, MEL_BANDS, chunks * SMALL.chunk_frames, generator=generator).to(CUDA) - 30
        labels = torch.rand(4, *((1 + chunks,) if settings.chunk_weight else ()), CLASSES, generator=generator).to(CUDA)
        gradients = []
        for objective in (recorded, plain):
            objective.zero_grad(set_to_none=True)
            objective(log_mel, labels, np.random.default_rng(0)).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
            with torch.no_grad():
                for parameter in objective.parameters():
                    parameter -= 0.01 * (parameter.grad if parameter.grad is not None else 0.0)
        assert len(gradients[0]) == len(gradients[1]) > 5_000_000
        assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-4


@with_gpu
def test_training_and_tagging_on_a_gpu_give_what_a_processor_gives(satpipe: Satpipe, tmp_path: Path) -> None:
    clips, labels, run = tmp_path / "clips", tmp_path / "labels", tmp_path / "run"
    torch.save(efficientat_state(0.4), tmp_path / "teacher.pt")
    satpipe("prepare", "examples/recordings", "--table", "examples/labels.csv", "-o", clips)
    satpipe("psl", clips, "--teacher", tmp_path / "teacher.pt", "-o", labels)
    sets = [f"data={clips}", f"labels={labels}", f"validation={clips}", f"validation_labels={labels}", "device=cuda"]
    sets += [f"teacher={tmp_path / 'teacher.pt'}", "input_norm=fixed", "clips_per_epoch=64", "reuse=2"]
    recipe = ROOT / "examples" / "audioset" / "recipes" / "sat_tiny_2s.yaml"
    trained = satpipe("train", "sat", recipe, "-o", run, *(part for key in sets for part in ("--set", key)))
    assert trained.returncode == 0, trained.stderr
    tables = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        options = ("--scores", "--device", device)
        done = satpipe("tag", "examples/recordings", "--model", run / "model.safetensors", "-o", out, *options)
        assert done.returncode == 0, done.stderr
        table = pd.read_parquet(out / "scores").astype({"recording": str}).sort_values(["recording", "start_s"])
        tables.append(np.stack(table["scores"]).astype(np.float32))
    assert tables[0].shape == tables[1].shape
    assert np.abs(tables[0] - tables[1]).max() < 2e-3
