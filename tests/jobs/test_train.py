"""Training: losses, checkpoints, lost workers, and what the export is good for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch
from conftest import COMMAND, ROOT, Satpipe
from helpers import model_by_rule, sound
from satpipe.jobs.evaluate import evaluate
from satpipe.jobs.train import worker as train_worker
from satpipe.jobs.train.config import TrainConfig, load_config
from satpipe.jobs.train.fit import _failure
from satpipe.jobs.train.job import export
from satpipe.jobs.train.preflight import check_inputs, judge, try_step
from satpipe.jobs.train.worker import Worker
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.pipeline.training_data.shards import Shards
from satpipe.pipeline.training_data.teachers import Segments
from satpipe.sat.errors import CheckpointError, ConfigError, TrainingError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import get_config, own_config
from satpipe.sat.model.network import SAT
from satpipe.sat.training import augmentation as augment
from satpipe.sat.training import forward, parameters
from satpipe.sat.training.mae import MaskedAutoencoder, patches
from satpipe.sat.weights.checkpoint import load
from satpipe.sat.weights.published import save
from satpipe.sat.weights.registry import load_checkpoint
from small_models import TWO_SECONDS, efficientat_state, model_of
from training import Alone, make_clips, write_all, write_labels, write_teacher
from without_ray import satpipe as without_ray

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray Train's use of Ray Data
RNG = 3
CLIPS = 8
RECIPES = ROOT / "examples" / "audioset" / "recipes"
FULL, MAE, SAT_2S = (str(RECIPES / f"{name}.yaml") for name in ("full_tiny", "mae_tiny", "sat_tiny_2s"))
SMALL = "arch={width: 48, heads: 2, depth: 2}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training set of a few clips, its labels by a teacher, and a small table of weak labels."""
    folder = tmp_path_factory.mktemp("training")
    audio = make_clips(folder / "audio", CLIPS, 3.0)
    table = folder / "labels.csv"
    table.write_text("path,labels\n" + "".join(f"{n:03}.flac,{('Speech', 'Dog')[n % 2]}\n" for n in range(CLIPS)))
    shards = write_all(audio, folder / "set", table=table)
    torch.save(efficientat_state(), folder / "teacher.pt")
    write_labels(shards, folder / "labels", write_teacher(folder / "teacher.safetensors"))
    return folder


def sets(*given: str) -> list[str]:
    return [word for setting in given for word in ("--set", setting)]


def arguments(folder: Path, out: str, *overrides: str) -> list[str]:
    given = (
        SMALL, "data=set", "labels=labels", "validation=set", "average_best=2", "epochs=2", "schedule=flat",
        "clips_per_epoch=12", "batch=4", "workers=2", "accumulate=2", "optimizer=adam8bit",
    )  # fmt: skip
    return ["train", "sat", SAT_2S, "-o", str(folder / out), *sets(*given, *overrides)]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, float]:
    found: dict[int, float] = {}
    for line in lines(run):
        if "loss" in line:
            assert line["update"] not in found
            found[line["update"]] = line["loss"]
    return found


@pytest.fixture(scope="module")
def undisturbed(folder: Path, satpipe_here: Satpipe) -> dict[int, float]:
    on_interrupt = signal.getsignal(signal.SIGINT)
    done = satpipe_here(*arguments(folder, "undisturbed"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert signal.getsignal(signal.SIGINT) is on_interrupt  # not Ray's
    assert "batch 4 in 2 parts on 2 workers (cpu), learning rate 0.0005; a step needs about 0." in done.stderr
    assert "hours_left 0," in done.stderr
    return losses(folder / "undisturbed")


@pytest.mark.slow
def test_a_run_leaves_figures_and_a_model_that_tags(
    folder: Path, undisturbed: dict[int, float], satpipe_here: Satpipe, tmp_path: Path
) -> None:
    run = folder / "undisturbed"
    assert sorted(undisturbed) == list(range(1, 7))
    assert list((run / "tensorboard").iterdir())
    assert [0 < line["map"] <= 1 for line in lines(run) if "map" in line] == [True] * 2
    exported = load(run / "model.safetensors")
    assert exported.config == own_config(streaming=True, width=48, heads=2, depth=2)
    assert exported.metadata["stage"] == "sat"
    assert exported.metadata["samples_seen"] == "24"
    checkpoints = sorted((path.parent for path in (run / "ray").glob("*/state.pt")), key=lambda path: path.name)
    states = [torch.load(path / "state.pt", weights_only=True) for path in checkpoints]
    weights = [state["objective"]["tagger.outputlayer.1.weight"] for state in states]
    assert len(weights) == 2
    torch.testing.assert_close(exported.state["outputlayer.1.weight"], torch.stack(weights).mean(0))
    assert len(json.loads(exported.metadata["labels"])) == 527
    assert json.loads(exported.metadata["data"])["clips"] == CLIPS
    assert json.loads(exported.metadata["settings"])["data"] == "set"  # without its path
    settings = TrainConfig(**json.loads((run / "run.json").read_text())["settings"])
    (folder / "last").mkdir()
    last = export(settings, folder / "last", checkpoints[-1:])
    done = satpipe_here("tag", folder / "audio", "-o", tmp_path, "--model", last)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run.json").read_text())["identity"]["arch"] == "SAT_w48_h2_d2_2s"
    figures = evaluate(tmp_path, weak=folder / "labels.csv")["figures"]
    found = next(each["value"] for each in figures if (each["name"], each["average"]) == ("mAP", "macro"))
    validated = [line["map"] for line in lines(run) if "map" in line][-1]
    assert validated == pytest.approx(found, abs=1e-3)


def updates(run: Path) -> int:
    return len(losses(run)) if (run / "metrics.jsonl").exists() else 0


def wait_for(condition: Callable[[], bool], still_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < deadline
        assert still_there()
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_that_loses_a_worker_and_is_then_killed_continues_with_the_same_losses(
    folder: Path, undisturbed: dict[int, float], satpipe_here: Satpipe
) -> None:
    run = folder / "killed"
    process = subprocess.Popen(
        [str(COMMAND), *arguments(folder, "killed", "checkpoint_steps=1")],
        cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: updates(run) >= 2, lambda: process.poll() is None)
        started = psutil.Process(process.pid).children(recursive=True)
        next(each for each in started if "ray::RayTrainWorker" in " ".join(each.cmdline())).kill()
        wait_for(lambda: updates(run) >= 3, lambda: process.poll() is None)
    finally:
        for pid in reversed(psutil.pids()):  # at once, before the last update
            with suppress(ProcessLookupError):
                if os.getsid(pid) == process.pid:
                    os.kill(pid, signal.SIGKILL)
        process.wait()
    assert updates(run) < 6
    assert not (run / "model.safetensors").exists()
    again = satpipe_here(*arguments(folder, "killed", "checkpoint_steps=1"), cwd=folder)
    assert "already contains a run; add --resume to continue it" in again.stderr
    other = satpipe_here(*arguments(folder, "killed", "checkpoint_steps=1", "lr=1"), "--resume", cwd=folder)
    assert "has lr 0.0005, not 1.0; --resume can only change average_best, " in other.stderr
    longer = arguments(folder, "killed", "checkpoint_steps=1", "epochs=3", "decay_epochs=1")
    done = satpipe_here(*longer, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    first = {update: loss for update, loss in losses(run).items() if update <= len(undisturbed)}
    assert first == pytest.approx(undisturbed, rel=1e-5)
    rates = [line["lr"] for line in lines(run) if "lr" in line]
    assert rates == [5e-4] * 7 + [pytest.approx(5e-4 * share) for share in (2 / 3, 1 / 3)]


def large_weights(folder: Path) -> Path:
    """Weights whose loss overflows."""
    broken = load(folder / "teacher.safetensors")
    model = SAT(get_config("SAT_T_2s"))
    parameters.start_from(model, broken.state)
    with torch.no_grad():
        model.outputlayer[1].weight.fill_(3e38)
    save(model, folder / "large.safetensors")
    return folder / "large.safetensors"


def test_a_loss_that_is_no_number_stops_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = folder / "diverged"
    run.mkdir()
    given = (SMALL, "data=set", "labels=labels", "clips_per_epoch=6", "lr=1e38", "precision=fp32")
    settings = load_config("sat", SAT_2S, given)
    monkeypatch.setattr(train_worker, "RayGroup", lambda: Alone(run / "checkpoints"))
    train_worker.train_worker({"settings": settings.model_dump(), "run": str(run)})  # ends; Ray must not repeat it
    error = _failure(run, TrainingError())
    assert isinstance(error, TrainingError)
    assert "the loss became" in str(error)
    assert "at update 1 (epoch 0, batch 1 of worker 0: " in str(error)
    assert not (run / "checkpoints").exists()


def test_full_context_with_everything_the_paper_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with a teacher's labels, of clips that have none of their own."""
    monkeypatch.chdir(folder)
    bare = write_all(make_clips(folder / "few", 4, 2.0), folder / "bare")
    write_labels(bare, folder / "bare-labels", folder / "teacher.safetensors")
    given = (
        "data=bare", "labels=bare-labels", "validation=bare", "validation_labels=bare-labels",
        "epochs=3", "clips_per_epoch=4", "batch=4", "accumulate=2", "optimizer=adam8bit",
        "average_best=4", "init=teacher.safetensors",
    )  # fmt: skip
    settings, run = load_config("full", FULL, given), folder / "full"
    group = Alone(run / "checkpoints")
    Worker(settings, run, group).train()
    assert sorted(losses(run)) == list(range(1, 4))
    states = [torch.load(path / "state.pt", weights_only=True) for path in group.checkpoints]
    assert len(states) == 3
    weights = [state["objective"]["tagger.outputlayer.1.weight"] for state in states]
    exported = load(export(settings, run, group.checkpoints))
    torch.testing.assert_close(exported.state["outputlayer.1.weight"], torch.stack(weights).mean(0))


@pytest.mark.slow
def test_fine_tuning_on_labels_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("garden").mkdir()
    for number, (name, seconds) in enumerate({"a.wav": 14, "b.wav": 4}.items()):
        soundfile.write(Path("garden", name), sound(16_000 * seconds, number).numpy().clip(-1, 1), 16_000)
    header, speech = "recording\tonset\toffset\tlabel\n", "a.wav\t3.8\t6.5\tMale speech, man speaking\n"
    Path("garden.tsv").write_text(f"{header}{speech}a.wav\t11\t13\tDog\na.wav\t3.9\t4.2\tBird\n")
    assert without_ray("prepare", "garden", "-o", "garden_set").returncode == 0
    psl = ("psl", "garden_set", "--strong", "garden.tsv", "-o", "garden_labels")
    done = without_ray(*psl)
    assert done.returncode == 3
    assert done.stdout.endswith("garden.tsv does not contain 1 of the clips, such as b.wav\n")
    shards = Shards("garden_set")
    segments = Segments("garden_labels", shards)
    found = {
        (shards.clips[clip], start_s): {weak_labels()[index].name for index in np.flatnonzero(row)}
        for clip, start_s, row in zip(segments.numbers, segments.starts_s, segments.labels(np.arange(4)), strict=True)
    }
    assert found[("a.wav#0", 0.0)] == set()  # 0.2 s of 2.7 s, and 0.1 s of 0.3 s
    assert {"Male speech, man speaking", "Speech", "Bird", "Animal"} < found[("a.wav#0", 4.0)]
    assert found[("a.wav#0", 8.0)] == set()
    assert {"Dog", "Animal"} < found[("a.wav#10", 0.0)]
    given = ("data=garden_set", "labels=garden_labels", "init=bundled", "epochs=1", "batch=2")
    settings, group = load_config("sat", "finetune", given), Alone(tmp_path / "checkpoints")
    check_inputs(settings)
    Worker(settings, tmp_path, group).train()
    tuned, bundled = load(export(settings, tmp_path, group.checkpoints)), load_checkpoint("bundled")
    moved = (tuned.state["outputlayer.1.weight"] - bundled.state["outputlayer.1.weight"]).abs().max()
    assert 0 < float(moved) < 0.01
    assert torch.equal(tuned.state["init_bn.running_mean"], bundled.state["init_bn.running_mean"])
    Path("other.tsv").write_text(header + speech.replace("a.wav", "c.wav"))
    for wrong, message in (
        (("--strong", "other.tsv"), "other.tsv has labels of none of the recordings in "),
        (("--strong", "garden.tsv", "--teacher", "bundled"), "name either a --teacher or your --strong labels"),
        ((), "name either a --teacher or your --strong labels"),
    ):
        refused = without_ray("psl", "garden_set", *wrong, "-o", "others")
        assert refused.returncode == 1
        assert message in refused.stderr
    Path("garden.tsv").write_text(header + speech)
    assert "made with another strong_sha256" in without_ray(*psl).stderr


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["bundled", "sat_tiny_sequences"])
def test_views_and_running_averages(folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """The bundled model's recipes, for two updates."""
    monkeypatch.chdir(folder)
    given = (
        "data=set", "labels=labels", "teacher=teacher.pt", "validation=set", "validation_labels=labels", "epochs=1",
        "clips_per_epoch=8", "batch=4", "reuse=1", "workers=1", "warmup_epochs=0", "decay_epochs=0",
        "threads=1",
    )  # fmt: skip
    settings, run = load_config("sat", recipe, given), folder / recipe
    group = Alone(run / "checkpoints")
    Worker(settings, run, group).train()
    assert [metrics["update"] for metrics in group.metrics] == [2]
    exported = load(export(settings, run, group.checkpoints))
    assert json.loads(exported.metadata["metrics"])["classes_3"] > 0
    assert exported.state["init_bn.running_mean"].abs().gt(1).sum() > 50  # fixed: computed from the data, in dB
    assert exported.state["outputlayer.1.bias"].eq(exported.state["outputlayer.1.bias"].half().float()).all()


def test_sequences_are_trained_on_a_teachers_labels_of_their_chunks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `psl` to the weights: the loss falls on the same few sequences."""
    monkeypatch.chdir(folder)
    save(model_of(TWO_SECONDS), folder / "start.safetensors")
    cut = SegmentOptions(piece_s=5.76, chunk_s=1.92, top_k=527)
    write_labels(Shards("set"), folder / "sequences", folder / "teacher.pt", cut)
    given = ("data=set", "labels=sequences", "sequence_chunks=3", "memory_gradient=true", "chunk_weight=1")
    given += (f"arch={TWO_SECONDS.name}", "init=start.safetensors", "clips_per_epoch=8", "batch=8", "epochs=6")
    settings = load_config("sat", SAT_2S, [*given, "lr=1e-2", "precision=fp32"])
    group = Alone(folder / "sequences-run" / "checkpoints")
    Worker(settings, folder / "sequences-run", group).train()
    found = list(losses(folder / "sequences-run").values())
    assert len(found) == 6
    assert found[-1] < 0.95 * found[0]
    short = load_config("sat", SAT_2S, [*given, "sequence_chunks=5"])
    with pytest.raises(TrainingError, match=r"last 5.76 s, but the model reads 5 chunks of 1.92 s: .*--piece-s 10"):
        Worker(short, folder / "short-run", Alone(folder / "short-run"))


@pytest.mark.slow
def test_the_command_says_what_is_wrong_before_anything_starts(folder: Path, satpipe_here: Satpipe) -> None:
    typo = satpipe_here(*arguments(folder, "typo", "warmup_epoch=1"), cwd=folder)
    assert typo.returncode == 1
    assert "sat_tiny_2s.yaml: unknown key 'warmup_epoch'; did you mean warmup_epochs?" in typo.stderr
    gone = satpipe_here(*arguments(folder, "gone", "data=nowhere"), cwd=folder)
    assert "run `satpipe prepare` first" in gone.stderr
    none = satpipe_here(*arguments(folder, "none"), "--resume", cwd=folder)
    assert "contains no run to continue" in none.stderr


def test_a_step_is_tried_before_anything_that_takes_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    given = ("data=set", "labels=labels", "validation=set", "precision=fp32")
    small, large = (load_config("sat", SAT_2S, [*given, f"batch={batch}"]) for batch in (2, 2_000_000))
    found = try_step(small.model_dump())
    assert found.checkpoint_bytes > 3 * 4 * 5_400_000  # weights and two running means of 5.4 million parameters
    assert "batch 2 on 1 worker (cpu), learning rate 0.0005; a step needs about 0." in judge(small, found, folder)
    with pytest.raises(
        ConfigError, match=r"a step of 2000000 clips needs about \d{4,}.\d GB of memory, but .* accumulate"
    ):
        judge(large, try_step(large.model_dump()), folder)
    overflow = load_config("sat", SAT_2S, [*given, f"init={large_weights(folder)}"])
    with pytest.raises(TrainingError, match="the loss of the first step is nan"):
        try_step(overflow.model_dump())
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim.adam", None)
    with pytest.raises(TrainingError, match="adam8bit needs bitsandbytes; install the extra train"):
        try_step(load_config("sat", "sat_tiny_2s", given).model_dump())


def test_too_little_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes\nmore")

    monkeypatch.setattr(train_worker, "Worker", full)
    monkeypatch.setattr(train_worker, "RayGroup", lambda: None)
    settings = load_config("sat", "sat_tiny_2s", ["data=a", "labels=b", "validation=c"]).model_dump()
    with pytest.raises(TrainingError, match="32 clips at once do not fit into memory: .*, raise accumulate"):
        train_worker.train_worker({"settings": settings, "run": str(tmp_path)})
    with pytest.raises(TrainingError, match="the run has failed before"):  # another try by Ray ends at once
        train_worker.train_worker({"settings": settings, "run": str(tmp_path)})


def test_starting_from_a_full_context_model_fits_the_positions() -> None:
    start = model_by_rule(get_config("audiotransformer_tiny"))
    model = SAT(get_config("SAT_T_2s"))
    assert parameters.start_from(model, start.state_dict()) == []
    torch.testing.assert_close(model.time_pos_embed, start.time_pos_embed[..., :24])
    parameters.initialise(model)
    before = model.outputlayer[1].weight.clone()
    assert parameters.start_from(model, start.state_dict(), head=False) == [
        "outputlayer.0.weight", "outputlayer.0.bias", "outputlayer.1.weight", "outputlayer.1.bias"
    ]  # fmt: skip
    assert bool((model.outputlayer[1].weight == before).all())
    with pytest.raises(CheckpointError, match="initial weights do not fit SAT_S_2s"):
        parameters.start_from(SAT(get_config("SAT_S_2s")), start.state_dict())


def test_patch_out_leaves_out_times_and_frequencies() -> None:
    model = model_by_rule(replace(get_config("audiotransformer_tiny"), depth=1))
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    log_mel = torch.randn(2, 64, 1000)
    generator = torch.Generator().manual_seed(RNG)
    logits = forward.full_context_logits(model, log_mel, generator, patch_out=0.25)
    assert logits.shape == (2, 527)
    assert seen[0].shape[1] == 3 * (62 - 15)
    tokens = model.embed(log_mel)
    kept = [t for t in range(tokens.shape[1]) if bool((tokens[0, t] == seen[0][0]).all(-1).any())]
    assert len({t // 62 for t in kept}) == 3
    assert len({t % 62 for t in kept}) == 47


def test_without_anything_left_out_it_is_the_model() -> None:
    model = model_by_rule(replace(get_config("audiotransformer_small"), depth=2))
    log_mel = torch.randn(2, 64, 160)
    logits = forward.full_context_logits(model, log_mel, torch.Generator())
    torch.testing.assert_close(torch.sigmoid(logits), model(log_mel)[0])


@pytest.mark.parametrize("name", ["audiotransformer_tiny", "audiotransformer_small"])
def test_the_autoencoder_learns_what_is_masked(name: str) -> None:
    torch.manual_seed(0)
    autoencoder = MaskedAutoencoder(replace(get_config(name), depth=1), decoder_depth=1, decoder_width=64)
    stripes = torch.arange(64.0)[:, None].sin().mul(20).expand(64, 160)  # the same in every patch of a row
    log_mel = torch.stack([stripes, stripes + 1])
    optimizer = torch.optim.AdamW((p for p in autoencoder.parameters() if p.requires_grad), lr=3e-3)
    found = []
    for step in range(25):
        loss = autoencoder(log_mel, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[0] > 0.8  # of values of variance 1
    assert found[-1] < 0.5 * found[0]


def test_a_clip_skips_attention_and_perceptron_independently() -> None:
    model = model_by_rule(replace(get_config("audiotransformer_tiny"), depth=2))
    last = model.blocks[1]
    tokens: list[torch.Tensor] = []  # before the last block, after its attention, after it
    for module in (last.norm1, last.norm2, model.norm):
        module.register_forward_pre_hook(lambda _, given: tokens.append(given[0]))
    clips = torch.randn(400, 64, 16)
    with torch.no_grad():
        forward.full_context_logits(model, clips, torch.Generator().manual_seed(RNG), drop_path=0.5)
    before, between, after = tokens
    attention, perceptron = ((a != b).flatten(1).any(1) for a, b in ((before, between), (between, after)))
    for stays in (attention, perceptron, attention & ~perceptron, ~attention & perceptron):
        assert 0.18 < float(stays.float().mean()) < 0.58
    assert float((attention & perceptron).float().mean()) == pytest.approx(0.25, abs=0.07)


def test_an_autoencoder_is_ranked_by_its_loss_and_exported_without_its_class_token(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    given = (SMALL, "data=set", "validation=set", "epochs=2", "clips_per_epoch=2", "average_best=2")
    settings, group = load_config("mae", MAE, given), Alone(folder / "mae" / "checkpoints")
    Worker(settings, folder / "mae", group).train()
    measured = [line["validation_loss"] for line in lines(folder / "mae") if "validation_loss" in line]
    assert len(measured) == 2
    assert measured[0] != measured[1]
    assert [metrics["validation_loss"] for metrics in group.metrics] == measured
    saved = torch.load(group.checkpoints[0] / "state.pt", weights_only=True)["objective"]
    assert "autoencoder.model.cls_token" in saved
    assert load(export(settings, folder / "mae", group.checkpoints)).config.name == "audiotransformer_w48_h2_d2_10s"


def test_patches_are_in_the_order_of_the_tokens() -> None:
    log_mel = torch.arange(64 * 48.0).view(1, 64, 48)
    cut = patches(log_mel)
    assert cut.shape == (1, 12, 256)
    torch.testing.assert_close(cut[0, 1 * 3 + 2].view(16, 16), log_mel[0, 16:32, 32:48])


def test_augmentation_does_what_it_says() -> None:
    rng = np.random.default_rng(RNG)
    waveforms = torch.randn(4, 1000)
    shifted = augment.shift(waveforms, rng)
    torch.testing.assert_close(shifted.sort(1).values, waveforms.sort(1).values)
    assert not bool((shifted == waveforms).all())
    louder = augment.gain(waveforms, rng, 6.0) / waveforms
    torch.testing.assert_close(louder, louder[:, :1].expand(-1, 1000), atol=1e-4, rtol=1e-4)
    assert bool((louder[:, 0] >= 0.5).all())
    assert bool((louder[:, 0] <= 2.0).all())
    assert bool((augment.polarity(waveforms, rng).abs() == waveforms.abs()).all())
    labels = torch.eye(4)
    mixed, soft = augment.mixup(waveforms, labels, rng, 0.3)
    torch.testing.assert_close(soft.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed, soft @ waveforms, atol=1e-4, rtol=1e-4)
    masked = augment.mask(torch.randn(2, 64, 400), rng, frames=192, bands=24)
    assert masked.shape == (2, 64, 400)
    assert float(augment.level(waveforms * 9, rng, 6.0).abs().max()) <= 1.0001


def test_masks_are_a_stripe_of_time_and_one_of_bands() -> None:
    log_mel = torch.randn(50, 64, 400)
    fixed = augment.mask(log_mel, np.random.default_rng(RNG), frames=30, bands=8) != log_mel
    assert {int(n) for n in fixed.all(1).sum(1)} == {30}
    assert {int(n) for n in fixed.all(2).sum(1)} == {8}
    masked = augment.mask(log_mel, np.random.default_rng(RNG), frames=30, bands=8, fixed=False)
    hidden = masked != log_mel
    assert bool((masked == log_mel.mean((1, 2), keepdim=True))[hidden].all())
    for item in hidden:
        frames, bands = item.all(0).nonzero().flatten(), item.all(1).nonzero().flatten()
        for stripe, most in ((frames, 30), (bands, 8)):
            assert len(stripe) <= most
            assert bool((stripe.diff() == 1).all())
        assert int(item.sum()) == 64 * len(frames) + 400 * len(bands) - len(frames) * len(bands)
    assert 0.3 * 30 < hidden.all(1).sum(1).float().mean() < 0.7 * 30


def test_speed_plays_a_tone_higher_or_lower() -> None:
    places = np.arange(16_000)
    tone = torch.from_numpy(np.sin(places / 20)).float().expand(40, -1)
    played = augment.speed(tone, np.random.default_rng(RNG), 0.5, 0.3).numpy()
    rng = np.random.default_rng(RNG)
    changed = np.nonzero(rng.random(40) < 0.5)[0]
    factors = np.exp(rng.uniform(-0.3, 0.3, len(changed)))
    expected = tone.numpy().copy()
    for row, factor in zip(changed, factors, strict=True):
        expected[row] = np.interp(places * factor, places, expected[row], right=0.0)
    np.testing.assert_allclose(played[:, :11_000], expected[:, :11_000], atol=1e-5)
    assert np.abs(played[changed[factors > 1.1]][:, 14_800:]).max() == 0  # past the end is silence


def test_rooms_and_responses_change_some_and_keep_their_length() -> None:
    clicks = torch.zeros(200, 8000)
    clicks[:, 0] = 1.0
    heard = augment.colour(clicks, np.random.default_rng(RNG), equalised=0.0, reverberant=0.25)
    tails = heard[:, 1:].square().sum(1).sqrt()  # of a room, as loud as 0.2 to 1.0 times the sound itself
    reverberant = tails > 0.01
    assert 30 < int(reverberant.sum()) < 70
    assert 0.18 < float(tails[reverberant].min()) < float(tails.max()) < 1.02
    assert float(heard[reverberant][:, 4000:].abs().mean()) < float(heard[reverberant][:, 1:4000].abs().mean())
    response = augment.colour(clicks, np.random.default_rng(RNG), equalised=1.0, reverberant=0.0)
    levels_db = 20 * torch.fft.rfft(response).abs().log10()
    assert 4 < float(levels_db[:, ::500].std()) < 6
    noise = augment.noise(clicks, np.random.default_rng(RNG))
    torch.testing.assert_close(noise.abs().amax(1), torch.ones(200))


def test_averaging_models() -> None:
    states = [{"weight": torch.full((2,), float(n)), "count": torch.tensor(n)} for n in (1, 2, 6)]
    mean = parameters.average(states)
    assert mean["weight"].tolist() == [3, 3]
    assert int(mean["count"]) == 1


def test_eight_bit_adam_survives_a_checkpoint(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="install the extra train: pip install -e '.[train]'")

    def steps(layer: torch.nn.Linear, optimizer: Any, count: int) -> None:
        for _ in range(count):
            loss = (layer(torch.linspace(-1, 1, 4096)[None]) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    torch.manual_seed(0)
    layer = torch.nn.Linear(4096, 4)
    optimizer = bitsandbytes.optim.AdamW8bit(parameters.parameter_groups(layer, 0.1), lr=1e-2)
    steps(layer, optimizer, 3)
    torch.save({"layer": layer.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    steps(layer, optimizer, 3)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    other = torch.nn.Linear(4096, 4)
    other.load_state_dict(saved["layer"])
    again = bitsandbytes.optim.AdamW8bit(parameters.parameter_groups(other, 0.1), lr=1e-2)
    again.load_state_dict(saved["optimizer"])
    assert any(t.dtype == torch.uint8 for state in again.state.values() for t in state.values() if torch.is_tensor(t))
    steps(other, again, 3)
    torch.testing.assert_close(other.weight, layer.weight)
