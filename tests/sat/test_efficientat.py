"""EfficientAT as a teacher. Its weights are not part of satpipe: where SATPIPE_EFFICIENTAT names a folder with
`mn04_as_mAP_432.pt` and `parity.npz`, outputs are compared with the published ones; the rest needs no download."""

import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same_scores
from rounding import tolerance
from satpipe.sat.errors import CheckpointError
from satpipe.sat.taggers.efficientat import EfficientAT
from satpipe.sat.taggers.kaldi import filterbank
from small_models import efficientat_state
from torch import Tensor, nn
from torch.nn import functional as F


def exact_scores(model: EfficientAT, waveforms: Tensor) -> Tensor:
    """Scores in float64."""
    double = deepcopy(model)
    double.window, double.filterbank = model.window.double(), model.filterbank.double()
    double.model.double()
    return double.model(double.features(waveforms.double())).sigmoid()


PUBLISHED = os.environ.get("SATPIPE_EFFICIENTAT", "")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(efficientat_state(), path)
    return path


@pytest.mark.skipif(
    not PUBLISHED, reason="set SATPIPE_EFFICIENTAT to a folder with published weights, see CONTRIBUTING"
)
def test_scores_are_the_published_ones() -> None:
    model = EfficientAT(Path(PUBLISHED, "mn04_as_mAP_432.pt"))
    with np.load(Path(PUBLISHED, "parity.npz")) as arrays:
        expected = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    waveform = expected["waveform_32k"][None]
    torch.testing.assert_close(model.features(waveform)[0], expected["log_mel"], atol=1e-4, rtol=0)
    for samples, name in ((waveform, "scores_10s"), (waveform[:, :128_000], "scores_first_4s")):
        scores = model.scores(samples)
        assert_same_scores(scores[0], expected[name], tolerance(scores, exact_scores(model, samples)))


def test_a_folded_batch_norm_does_what_the_batch_norm_does(weights: Path) -> None:
    state = efficientat_state()
    model = EfficientAT(weights)
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    norm = nn.BatchNorm2d(8, eps=1e-3).eval()
    norm.load_state_dict(
        {n.rpartition(".")[2]: t for n, t in state.items() if n.startswith("features.0.1.")}, strict=False
    )
    weight = state["features.0.0.weight"].double()
    exact = F.hardswish(norm.double()(F.conv2d(x.double(), weight, stride=2, padding=1)))
    products = float(F.conv2d(x.abs(), weight.float().abs(), stride=2, padding=1).max())  # each is rounded
    torch.testing.assert_close(model.model.features[0](x).double(), exact, atol=16 * 2**-23 * products, rtol=0)


def test_a_score_does_not_depend_on_its_neighbours(weights: Path) -> None:
    model = EfficientAT(weights)
    waveforms = torch.randn(3, 32_000, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [[1.0], [0.1], [0.01]]
    )
    together = model.scores(waveforms)
    assert together.shape == (3, 527)
    assert together.std(0).max() > 1e-3
    exact = exact_scores(model, waveforms[1:2])
    assert_same_scores(together[1:2], exact, tolerance(model.scores(waveforms[1:2]), exact))


def test_the_filters_are_kaldis() -> None:
    filters = filterbank(32_000, 1024, 0.0, 15_000.0)
    assert filters.shape == (512, 128)
    peaks_hz = filters.argmax(0) * 31.25
    assert peaks_hz[0] == 31.25
    assert peaks_hz[-1] == pytest.approx(15_000 * (1 - 0.023), rel=0.01)  # the last centre lies a step below the end
    assert bool((filters[int(15_000 / 31.25) :] == 0).all())


def test_other_files_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint .* not found"):
        EfficientAT(tmp_path / "none.pt")
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        EfficientAT(tmp_path / "noise.pt")
    state = efficientat_state()
    del state["features.4.block.0.0.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match="is not an EfficientAT network: it has no features.4.block.0.0.weight"):
        EfficientAT(tmp_path / "less.pt")
