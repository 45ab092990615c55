"""Settings of training: those that come with satpipe are the paper's, and a wrong one is named."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from satpipe.jobs.train.config import CONFIG_FOLDER, load_config
from satpipe.jobs.train.learner import learning_rate
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import get_config, own_config

GIVEN = ("data=clips", "labels=labels", "validation=others")
SHIPPED = sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_comes_with_satpipe_loads(name: str) -> None:
    stage = "sat" if name in ("bundled", "finetune") else next(s for s in ("mae", "full", "sat") if s in name)
    assert load_config(stage, name, GIVEN).stage == stage


def test_there_is_one_for_every_stage_and_size() -> None:
    sizes = ("tiny", "small", "base")
    names = [f"{stage}_{size}" for stage in ("mae", "full") for size in sizes]
    names += [f"sat_{size}_{seconds}s" for size in sizes for seconds in (1, 2)]
    assert set(names) < set(SHIPPED)


def test_the_papers_values() -> None:
    """Section 4.3."""
    for size, lr, warmup, mae_epochs, depth in (
        ("tiny", 5e-4, 60, 50, 4), ("small", 4e-4, 55, 50, 8), ("base", 1e-5, 10, 40, 8),
    ):  # fmt: skip
        mae = load_config("mae", f"mae_{size}", GIVEN)
        assert (mae.epochs, mae.batch, mae.lr, mae.lr_end, mae.warmup_epochs) == (mae_epochs, 64, 2e-4, 2e-5, 3)
        assert mae.decoder_depth == depth
        full = load_config("full", f"full_{size}", GIVEN)
        assert (full.epochs, full.clips_per_epoch, full.lr, full.warmup_epochs) == (180, 200_000, lr, warmup)
        assert (full.patch_out, full.drop_path, full.mask_frames, full.mask_bands) == (0.25, 0.1, 192, 24)
        for seconds in (1, 2):
            sat = load_config("sat", f"sat_{size}_{seconds}s", GIVEN)
            assert (sat.epochs, sat.clips_per_epoch, sat.lr, sat.warmup_epochs) == (250, 200_000, lr, warmup)
            assert not (sat.shift)
            assert not (sat.polarity)
            assert not (sat.gain_db)
            assert not (sat.mixup_alpha)
            assert not (sat.mask_frames)
            assert (sat.sequence_chunks, sat.memory_gradient) == (2, False)
            assert (sat.sequence_weight, sat.chunk_weight, sat.join) == (1, 0, 0)


def test_overrides_and_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("arch: SAT_T_1s\nepochs: 3\nlr: 1e-4\n")
    settings = load_config("sat", str(path), [*GIVEN, "lr=2e-3", "shift=true", "betas=[0.9, 0.95]", "init="])
    assert (settings.stage, settings.lr, settings.shift, settings.betas) == ("sat", 2e-3, True, (0.9, 0.95))
    assert settings.init == ""
    assert load_config("sat", str(path), [*GIVEN, "batch=4.0", "data=2025"]).data == "2025"  # every scalar is a text


def test_an_architecture_of_ones_own_is_known_by_the_name_that_states_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("arch: {width: 96, heads: 3, chunk_s: 0.5, class_token: true}\nepochs: 3\nlr: 1e-4\n")
    settings = load_config("sat", str(path), GIVEN)
    assert settings.arch == "SAT_w96_h3_d12_0.5s_cls"
    config = get_config(settings.arch)
    assert (config.width, config.heads, config.depth, config.class_token) == (96, 3, 12, True)
    assert (config.chunk_frames, config.memory_tokens, config.time_positions) == (48, 12, 6)
    assert load_config("mae", str(path), GIVEN).arch == "audiotransformer_w96_h3_d12_0.5s_cls"
    assert load_config("full", "full_tiny", [*GIVEN, "arch={width: 96, heads: 3}"]).arch.endswith("_d12_10s")


@pytest.mark.parametrize(("name", "chunk_s"), [("SAT_T_2s", 2), ("SAT_T_1s", 1), ("audiotransformer_tiny", None)])
def test_an_architecture_with_the_papers_sizes_is_the_papers(name: str, chunk_s: float | None) -> None:
    own = own_config(streaming=name.startswith("SAT"), width=192, heads=3, chunk_s=chunk_s)
    assert replace(own, name=name) == get_config(name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("warmup_epoch=3", "sat_tiny_2s.yaml: unknown key 'warmup_epoch'; did you mean warmup_epochs?"),
        ("lr=fast", "sat_tiny_2s.yaml: lr must be a valid number, not 'fast'"),
        ("batch=2.5", "batch must be a valid integer, not 2.5"),
        ("batch=true", "batch must be a number, not True"),
        ("shift=1", "shift must be true or false, not 1"),
        ("betas=0.9", "betas must be two numbers, not 0.9"),
        ("betas=[0.9]", r"betas must be two numbers, not \[0.9\]"),
        ("batch=0", "batch must be greater than or equal to 1, not 0"),
        ("patch_out=1", "patch_out must be less than 1, not 1"),
        ("lr=0", "lr must be greater than 0, not 0"),
        ("optimizer=sgd", "optimizer must be 'adamw', 'adam8bit' or 'adamw8bit', not 'sgd'"),
        ("arch={width: 96, head: 3}", "arch: unknown key 'head'; did you mean heads?"),
        ("arch={width: 96}", "arch: keys missing: heads"),
        ("arch={width: 97, heads: 3}", "arch: width must be a multiple of heads, 3, not 97"),
        ("arch={width: 96, heads: true}", "arch: heads must be a number, not True"),
        ("arch={width: 96, heads: 3, depth: 0}", "arch: depth must be greater than or equal to 1, not 0"),
        ("arch={width: 96, heads: 3, chunk_s: 0.1}", "arch: chunk_s must be from 0.16 to 999 seconds"),
        ("arch=SAT_w96_h3_d12_2.50s", "configuration 'SAT_w96_h3_d12_2.50s' not found"),
        ("arch=audiotransformer_w96_h3_d12_10s", "arch must be a streaming model for stage sat"),
        ("arch=SAT_T_3s", "configuration 'SAT_T_3s' not found; did you mean SAT_T_"),
        (
            "arch=audiotransformer_tiny",
            "arch must be a streaming model for stage sat .SAT_T_2s, .*not 'audiotransformer_tiny'",
        ),
        ("stage=full", "is for stage full, not sat"),
        ("warmup_epochs=900", "warmup_epochs and decay_epochs must add up to at most the 250 epochs"),
        ("workers=3", "batch must be a multiple of workers times accumulate, 3 x 1, not 32"),
        ("validation=", "average_best=4 ranks checkpoints on a validation set: add --set validation=FOLDER"),
        ("data=", "data must name the folder of a training set"),
        ("labels=", "labels must name the folder of a teacher's labels .* for stage sat"),
        ("sequence_chunks=1", "sequence_chunks must be greater than or equal to 2, not 1"),
        ("sequence_weight=0", "sequence_weight and chunk_weight must not both be 0"),
        ("lr", "--set must be key=value, not 'lr'"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("sat", "sat_tiny_2s", [*GIVEN, override])


def test_labels_of_chunks_do_not_move_with_a_shifted_waveform() -> None:
    with pytest.raises(ConfigError, match="shift must be false with chunk_weight"):
        load_config("sat", "sat_tiny_2s", [*GIVEN, "chunk_weight=1", "shift=true"])


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="configuration sat_tony_2s not found; did you mean sat_tiny_2s?"):
        load_config("sat", "sat_tony_2s")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="is not a table of keys and values"):
        load_config("sat", str(tmp_path / "list.yaml"))
    (tmp_path / "no.yaml").write_text("a: [\n")
    with pytest.raises(ConfigError, match="is not readable YAML"):
        load_config("sat", str(tmp_path / "no.yaml"))
    (tmp_path / "less.yaml").write_text("arch: SAT_T_2s\n")
    with pytest.raises(ConfigError, match="less.yaml: keys missing: epochs, lr"):
        load_config("sat", str(tmp_path / "less.yaml"), GIVEN)


def test_learning_rates() -> None:
    mae = load_config("mae", "mae_tiny", GIVEN)
    assert learning_rate(mae, 1.5) == pytest.approx(1e-4, rel=1e-2)
    assert learning_rate(mae, 3) == pytest.approx(2e-4)
    assert learning_rate(mae, 3 + 47 / 2) == pytest.approx(1.1e-4)
    assert learning_rate(mae, 50) == pytest.approx(2e-5)
    cut_off = load_config("full", "full_tiny", GIVEN)  # warm-up, then a half cosine as long as the run
    assert learning_rate(cut_off, 60 + 90) == pytest.approx(5e-5 + 4.5e-4 / 2)
    assert learning_rate(cut_off, 180) == pytest.approx(5e-5 + 4.5e-4 * (1 + math.cos(math.pi * 120 / 180)) / 2)
    flat = load_config("sat", "sat_tiny_2s", [*GIVEN, "schedule=flat", "decay_epochs=50", "lr_end=0"])
    assert learning_rate(flat, 199) == learning_rate(flat, 100) == 5e-4
    assert learning_rate(flat, 225) == pytest.approx(2.5e-4)
    assert math.isclose(learning_rate(flat, 250), 0, abs_tol=1e-12)
