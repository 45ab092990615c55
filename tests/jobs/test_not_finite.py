"""A model that computes NaN: every command stops, names what it met, and writes nothing."""

import json
from pathlib import Path

import pytest
import torch
import without_ray
from helpers import model_by_rule
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.config import get_config
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.weights.checkpoint import load
from satpipe.sat.weights.published import save
from tag_tables import make_recordings

TENSOR = "blocks.3.mlp.fc1.weight"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of which each is a finite number, but not what they give together."""
    model = model_by_rule(get_config("SAT_T_2s"))
    with torch.no_grad():
        model.get_parameter(TENSOR).fill_(3e38)
    path = tmp_path_factory.mktemp("weights") / "huge.safetensors"
    save(model, path)
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("recordings"), 2, 3)


def test_tag_names_the_recording_and_the_tensor_and_writes_no_row(
    weights: Path, recordings: Path, tmp_path: Path
) -> None:
    done = without_ray.satpipe("tag", recordings, "-o", tmp_path / "out", "--model", weights)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(
        "CheckpointError: the model computes scores that are not numbers for 000.wav, second 0.00; "
    )
    assert f"its largest weight, 3.0e+38, is in {TENSOR}" in error
    assert list(tmp_path.rglob("*.parquet")) == []


def test_stream_prints_valid_json_until_it_names_the_source_and_the_second(weights: Path, recordings: Path) -> None:
    done = without_ray.satpipe("stream", recordings / "000.wav", "--model", weights, "--scores")
    assert done.returncode == 1
    assert f"not numbers for {recordings / '000.wav'}, second 0.00; " in done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["start"]


def test_export_writes_no_file(weights: Path, tmp_path: Path) -> None:
    done = without_ray.satpipe("export", weights, "-o", tmp_path / "model.pt", "--format", "torchscript")
    assert done.returncode == 1
    assert f"is in {TENSOR}" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_segment_is_scored_with_numbers_or_not_at_all(weights: Path) -> None:
    checkpoint = load(weights)
    with pytest.raises(CheckpointError, match=TENSOR):
        checkpoint.tagger().scores(torch.zeros(1, 40_000))
    with pytest.raises(CheckpointError, match=f"not numbers for chunk 0; .* {TENSOR}"):
        StreamingTagger(checkpoint.model()).push(torch.zeros(40_000))
