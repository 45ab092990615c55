"""EfficientAT as a teacher. Its weights are not part of satpipe: where SATPIPE_EFFICIENTAT names a folder with
`mn04_as_mAP_432.pt` and `parity.npz`, outputs are compared with the published ones; the rest needs no download."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same_scores
from torch import Tensor, nn
from torch.nn import functional as F

from sat.efficientat import EfficientAT, kaldi_filterbank
from sat.errors import CheckpointError

PUBLISHED = os.environ.get("SATPIPE_EFFICIENTAT", "")

# kernel, expanded, out, squeeze-excitation of each block at width 1 (Howard et al. 2019, Table 1)
BLOCKS = [
    (3, 16, 16, False), (3, 64, 24, False), (3, 72, 24, False), (5, 72, 40, True), (5, 120, 40, True),
    (5, 120, 40, True), (3, 240, 80, False), (3, 200, 80, False), (3, 184, 80, False), (3, 184, 80, False),
    (3, 480, 112, True), (3, 672, 112, True), (5, 672, 160, True), (5, 960, 160, True), (5, 960, 160, True),
]  # fmt: skip


def eights(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def random_state(width: float = 0.1) -> dict[str, Tensor]:
    """A state dict of the published layout with weights of our own."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / max(1, np.prod(shape[1:])) ** 0.5

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        state[f"{name}.0.weight"] = tensor(outputs, inputs, kernel, kernel) * 2
        state[f"{name}.1.weight"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{name}.1.bias"] = 0.1 * tensor(outputs)
        state[f"{name}.1.running_mean"] = 0.1 * tensor(outputs)
        state[f"{name}.1.running_var"] = torch.rand(outputs, generator=generator) + 0.5

    def linear(name: str, outputs: int, inputs: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = tensor(outputs, inputs), 0.1 * tensor(outputs)

    channels = eights(16 * width)
    convolution("features.0", channels, 1, 3)
    for index, (kernel, expanded, out, excite) in enumerate(BLOCKS, start=1):
        wide, narrow, part = eights(expanded * width), eights(out * width), 0
        if expanded != 16:
            convolution(f"features.{index}.block.{part}", wide, channels, 1)
            part += 1
        convolution(f"features.{index}.block.{part}", wide, 1, kernel)
        part += 1
        if excite:
            linear(f"features.{index}.block.{part}.conc_se_layers.0.fc1", eights(wide / 4), wide)
            linear(f"features.{index}.block.{part}.conc_se_layers.0.fc2", wide, eights(wide / 4))
            part += 1
        convolution(f"features.{index}.block.{part}", narrow, wide, 1)
        channels = narrow
    convolution(f"features.{len(BLOCKS) + 1}", 6 * channels, channels, 1)
    linear("classifier.2", 64, 6 * channels)
    linear("classifier.5", 527, 64)
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(random_state(), path)
    return path


@pytest.mark.skipif(not PUBLISHED, reason="SATPIPE_EFFICIENTAT names no folder")
def test_scores_are_the_published_ones() -> None:
    model = EfficientAT(Path(PUBLISHED, "mn04_as_mAP_432.pt"))
    with np.load(Path(PUBLISHED, "parity.npz")) as arrays:
        expected = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    waveform = expected["waveform_32k"][None]
    torch.testing.assert_close(model.log_mel(waveform)[0], expected["log_mel"], atol=1e-4, rtol=0)
    assert_same_scores(model(waveform)[0], expected["scores_10s"], 1e-5)
    assert_same_scores(model(waveform[:, :128_000])[0], expected["scores_first_4s"], 1e-5)


def test_a_folded_batch_norm_does_what_the_batch_norm_does(weights: Path) -> None:
    state = random_state()
    model = EfficientAT(weights)
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    norm = nn.BatchNorm2d(8, eps=1e-3).eval()
    norm.load_state_dict(
        {n.rpartition(".")[2]: t for n, t in state.items() if n.startswith("features.0.1.")}, strict=False
    )
    expected = F.hardswish(norm(F.conv2d(x, state["features.0.0.weight"], stride=2, padding=1)))
    torch.testing.assert_close(model.features[0](x), expected, atol=1e-5, rtol=1e-5)


def test_a_score_does_not_depend_on_its_neighbours(weights: Path) -> None:
    model = EfficientAT(weights)
    waveforms = torch.randn(3, 32_000, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [[1.0], [0.1], [0.01]]
    )
    together = model(waveforms)
    assert together.shape == (3, 527)
    assert together.std(0).max() > 1e-3
    assert_same_scores(together[1:2], model(waveforms[1:2]), 1e-5)


def test_the_filters_are_kaldis() -> None:
    filters = kaldi_filterbank()
    assert filters.shape == (512, 128)
    peaks_hz = filters.argmax(0) * 31.25
    assert peaks_hz[0] == 31.25
    assert peaks_hz[-1] == pytest.approx(15_000 * (1 - 0.023), rel=0.01)  # the last centre lies a step below the end
    assert bool((filters[int(15_000 / 31.25) :] == 0).all())


def test_other_files_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        EfficientAT(tmp_path / "none.pt")
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        EfficientAT(tmp_path / "noise.pt")
    state = random_state()
    del state["features.4.block.1.0.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match="is no EfficientAT network: it has no features.4.block.1.0.weight"):
        EfficientAT(tmp_path / "less.pt")
