"""Weights on disk: what was written comes back, and a file that does not fit is refused with the reason."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import parity_waveform, stream
from safetensors import safe_open
from safetensors.torch import save_file
from satpipe.sat.errors import CheckpointError, ConfigError
from satpipe.sat.hashes import sha256_of
from satpipe.sat.model.config import CONFIGS, get_config, own_config
from satpipe.sat.model.frontend import LogMel
from satpipe.sat.model.network import SAT
from satpipe.sat.weights.checkpoint import load, published_shapes
from satpipe.sat.weights.published import fit_time_positions, save, to_published
from satpipe.sat.weights.registry import load_checkpoint, resolve
from torch import Tensor

NAME = "SAT_T_2s"
BUFFERS = {"front_end.0.spectrogram.window": LogMel().window, "front_end.0.mel_scale.fb": LogMel().filterbank}


def random_model(name: str = NAME, seed: int = 1) -> SAT:
    torch.manual_seed(seed)
    return SAT(get_config(name)).eval()


@pytest.fixture(scope="module")
def model() -> SAT:
    """Shared, so not to be changed."""
    return random_model()


@pytest.fixture
def tensors(model: SAT) -> dict[str, Tensor]:
    """What a published file holds."""
    return to_published(model.state_dict(), model.config)


def assert_same_state(state: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 0) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, atol=tolerance, rtol=tolerance, msg=f"{name} differs")


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


# What was written comes back


@pytest.mark.parametrize("name", [NAME, "SAT_S_1s", "audiotransformer_tiny"])
def test_a_saved_model_comes_back_exactly(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    save(model, tmp_path / "model.safetensors", licence="Apache-2.0")
    checkpoint = load(tmp_path / "model.safetensors")
    assert checkpoint.config == get_config(name)
    assert checkpoint.metadata["licence"] == "Apache-2.0"
    assert checkpoint.sha256 == sha256_of(tmp_path / "model.safetensors")
    assert_same_state(checkpoint.state, model.state_dict())
    samples = parity_waveform()[:30_000]
    assert torch.equal(stream(checkpoint.model(), samples), stream(model, samples))


def test_a_loaded_model_is_ready_to_tag(model: SAT, tmp_path: Path) -> None:
    save(model, tmp_path / "model.safetensors")
    assert not load(tmp_path / "model.safetensors").model().training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_saved_in_half_precision_comes_back_in_float32_rounded(
    model: SAT, dtype: torch.dtype, tmp_path: Path
) -> None:
    save(model, tmp_path / "full.safetensors")
    save(model, tmp_path / "half.safetensors", dtype)
    state = load(tmp_path / "half.safetensors").state
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    rounded = {name: t.to(dtype).float() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    assert_same_state(state, rounded)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.51 * (tmp_path / "full.safetensors").stat().st_size


def test_a_saved_file_has_the_published_tensor_names(model: SAT, tmp_path: Path) -> None:
    save(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(published_shapes(model.config))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("under_model", [False, True], ids=["bare", "under model"])
def test_a_published_file_is_recognised_by_its_shapes(
    model: SAT, tensors: dict[str, Tensor], under_model: bool, legacy: bool, tmp_path: Path
) -> None:
    state = {**tensors, **BUFFERS}
    content = {"model": state, "epoch": 3} if under_model else state
    torch.save(content, tmp_path / "published.pt", _use_new_zipfile_serialization=not legacy)
    checkpoint = load(tmp_path / "published.pt")
    assert checkpoint.config.name == NAME
    assert_same_state(checkpoint.state, model.state_dict())


@pytest.mark.parametrize("name", ["SAT_T_1s", "audiotransformer_tiny", "audiotransformer_small"])
def test_other_published_shapes_are_recognised_too(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    assert load(written(tmp_path / "model.pt", to_published(model.state_dict(), model.config))).config.name == name


@pytest.mark.parametrize("streaming", [True, False])
def test_a_model_of_ones_own_size_is_known_by_its_file(streaming: bool, tmp_path: Path) -> None:
    config = own_config(streaming=streaming, width=24, heads=2, depth=3, chunk_s=1.5, class_token=True)
    published = to_published(SAT(config).state_dict(), config)
    assert published_shapes(config) == {name: tuple(tensor.shape) for name, tensor in published.items()}
    save(SAT(config), tmp_path / "own.safetensors")
    loaded = load_checkpoint(str(tmp_path / "own.safetensors"))
    assert loaded.config == config
    assert loaded.has_memory == streaming
    with pytest.raises(CheckpointError, match=r"own.safetensors is not SAT_w24_h2_d4_1.5s_cls: "):
        load(tmp_path / "own.safetensors", "SAT_w24_h2_d4_1.5s_cls")


@pytest.mark.parametrize("arch", ["SAT_S_1s", "SAT_S_2s"])
def test_shapes_that_fit_two_models_need_to_be_told(arch: str, tmp_path: Path) -> None:
    path = written(tmp_path / "small.pt", to_published(random_model("SAT_S_2s").state_dict(), get_config("SAT_S_2s")))
    with pytest.raises(CheckpointError, match=r"small\.pt fits SAT_S_2s and SAT_S_1s; choose one with --arch"):
        load(path)
    assert load(path, arch).config.name == arch


def test_half_precision_published_files_load_with_their_rounded_front_end(
    model: SAT, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {name: t.half() if t.is_floating_point() else t for name, t in {**tensors, **BUFFERS}.items()}
    assert_same_state(load(written(tmp_path / "half.pt", content)).state, model.state_dict(), 1e-3)


# Files that do not fit


def test_a_missing_tensor_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    del tensors["blocks.7.attn.to_kv.weight"]
    path = written(tmp_path / "model.pt", tensors)
    with pytest.raises(CheckpointError, match=r"is not SAT_T_2s: blocks\.7\.attn\.to_kv\.weight missing"):
        load(path, NAME)
    with pytest.raises(CheckpointError, match=r"fits no configuration exactly; choose one with --arch"):
        load(path)


def test_of_many_missing_tensors_some_are_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt", {name: t for name, t in tensors.items() if not name.startswith("blocks.")})
    count = sum(name.startswith("blocks.") for name in tensors)
    with pytest.raises(CheckpointError, match=rf"blocks\.0\.\S+, .* and {count - 4} more missing"):
        load(path, NAME)


@pytest.mark.parametrize("name", ["outputlayer.1.weight", "freq_pos_embed", "init_bn.1.running_mean"])
def test_a_misshapen_tensor_is_named_with_both_shapes(name: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    right = list(tensors[name].shape)
    tensors[name] = tensors[name].flatten()[:-1]
    wrong = list(tensors[name].shape)
    path = written(tmp_path / "model.pt", tensors)
    with pytest.raises(CheckpointError, match=re.escape(f"is not SAT_T_2s: {name} is {wrong} instead of {right}")):
        load(path, NAME)


def test_a_time_position_table_of_another_width_is_misshapen(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tensors["time_pos_embed"] = torch.zeros(1, 64, 1, 24)
    with pytest.raises(CheckpointError, match=r"time_pos_embed is \[1, 64, 1, 24\] instead of \[1, 192, 1, 24\]"):
        load(written(tmp_path / "model.pt", tensors), NAME)


def test_a_file_of_one_model_is_refused_as_another(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt", tensors)
    for arch in ("SAT_B_2s", "SAT_S_2s", "audiotransformer_tiny"):
        with pytest.raises(CheckpointError, match=f"is not {arch}: "):
            load(path, arch)


def test_surplus_tensors_are_named_in_a_warning_and_left_out(
    model: SAT, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = written(tmp_path / "model.pt", {**tensors, "momentum": torch.zeros(3), "decoder.weight": torch.zeros(2)})
    with pytest.warns(UserWarning, match=r"decoder\.weight, momentum ignored: not part of SAT_T_2s"):
        checkpoint = load(path)
    assert_same_state(checkpoint.state, model.state_dict())


@pytest.mark.parametrize("name", ["blocks.3.mlp.fc1.weight", *BUFFERS])
@pytest.mark.parametrize("kind", [torch.int8, torch.complex64, torch.int64])
def test_weights_that_are_not_floating_point_numbers_are_named(
    name: str, kind: torch.dtype, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    there = {**tensors, **BUFFERS}
    path = written(tmp_path / "model.pt", {**there, name: there[name].to(kind)})
    with pytest.raises(CheckpointError, match=f"{name} |its {name} differs"):
        load(path)


def test_negative_variances_are_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    tensors["init_bn.1.running_var"] = torch.linspace(-1, 1, 64)
    with pytest.raises(CheckpointError, match=r"is damaged: negative variances in init_bn\.1\.running_var"):
        load(written(tmp_path / "model.pt", tensors))


@pytest.mark.parametrize("name", BUFFERS)
def test_weights_made_for_another_front_end_are_refused(name: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    for other in (BUFFERS[name] * 1.01, BUFFERS[name][:-1]):
        path = written(tmp_path / "model.pt", {**tensors, **BUFFERS, name: other})
        with pytest.raises(CheckpointError, match=f"was trained with another front end: its {re.escape(name)} differs"):
            load(path)


@pytest.mark.parametrize("arch", ["SAT_T_3s", "sat_t_2s"])
def test_an_unknown_configuration_is_answered_with_near_ones(
    arch: str, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"configuration '{arch}' not found; did you mean .*SAT_T_2s"):
        load(written(tmp_path / "model.pt", tensors), arch)


def test_a_name_like_no_configuration_is_answered_with_all_of_them() -> None:
    with pytest.raises(ConfigError) as error:
        get_config("xyz")
    assert all(name in str(error.value) for name in CONFIGS)


# Files that are no checkpoints


def test_a_file_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(CheckpointError, match=f"checkpoint {re.escape(str(path))} not found$"):
            load(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello\n", b"<html>404: not found</html>\n", bytes(1000)])
def test_a_file_of_another_kind_is_not_a_readable_checkpoint(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} is not a readable checkpoint: "):
        resolve(str(path))


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_not_a_readable_checkpoint(
    model: SAT, tensors: dict[str, Tensor], kept: float, tmp_path: Path
) -> None:
    save(model, tmp_path / "model.safetensors")
    written(tmp_path / "model.pt", tensors)
    for path in (tmp_path / "model.safetensors", tmp_path / "model.pt"):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} is not a readable checkpoint: "):
            load(path)


@pytest.mark.parametrize(
    "content", [{}, {"model": {}}, {"model": "SAT"}, {"epoch": 3}, {3: torch.zeros(3)}, [torch.zeros(3)], 3]
)
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="contains no state dict, neither bare nor under 'model' or 'state_dict'"):
        load(written(tmp_path / "model.pt", content))


class Trap:
    """Pickled, it is the command to create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_tensors_that_are_not_dense_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.eye(3).to_sparse()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt cannot be used: weight is sparse"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("made_by_torch", [False, True], ids=["pickle", "torch"])
def test_code_in_a_pickle_is_not_run(made_by_torch: bool, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = {"model": {"weight": torch.zeros(3), "trap": Trap(sprung)}}
    pickle.loads(pickle.dumps(content))
    assert sprung.exists()  # so the trap works
    sprung.unlink()
    path = tmp_path / "model.pt"
    if made_by_torch:
        written(path, content)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match="is not a readable checkpoint: "):
        load(path)
    assert not sprung.exists()


# Time positions


def test_a_longer_time_position_table_is_cut(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    table = torch.randn(1, 192, 1, 63)
    path = written(tmp_path / "model.pt", {**tensors, "time_pos_embed": table})
    assert torch.equal(load(path, NAME).state["time_pos_embed"], table[..., :24])


def test_a_shorter_time_position_table_is_stretched_linearly(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    slopes = torch.randn(192)[None, :, None, None]
    path = written(tmp_path / "model.pt", {**tensors, "time_pos_embed": slopes * torch.arange(12.0)})
    found = load(path, NAME).state["time_pos_embed"]
    middles = (torch.arange(24) + 0.5) / 2 - 0.5  # of the new entries, counted in old ones
    torch.testing.assert_close(found, slopes * middles.clamp(0, 11))


def test_a_table_of_the_right_length_stays_as_it_is() -> None:
    table = torch.randn(1, 192, 1, 24)
    assert torch.equal(fit_time_positions(table, 24), table)


def test_weights_of_a_2_s_model_make_a_1_s_model_when_asked_to(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = load(written(tmp_path / "model.pt", tensors), "SAT_T_1s")
    assert checkpoint.config.name == "SAT_T_1s"
    assert stream(checkpoint.model(), parity_waveform()[:16_000]).shape == (2, 527)


def test_a_safetensors_file_without_metadata_is_recognised_by_its_shapes(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = load(tmp_path / "model.safetensors")
    assert (checkpoint.config.name, checkpoint.metadata) == (NAME, {})
