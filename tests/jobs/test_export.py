"""`satpipe export`: the module that is exported, the files, and the example that runs one where satpipe is not."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from conftest import ROOT, Satpipe
from helpers import assert_same_scores, model_by_rule, parity_model, parity_waveform, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import assert_scores_of, exact_scores
from satpipe.jobs.benchmark import export as benchmark_export
from satpipe.jobs.export.job import TOLERANCE, Exported, export
from satpipe.jobs.export.runtime import Call, difference, open_onnx, open_torchscript, read, score
from satpipe.jobs.options.models import ExportOptions
from satpipe.sat.errors import AudioError, CheckpointError, ConfigError, OutputError
from satpipe.sat.hashes import sha256_of
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import (
    BUNDLED,
    CONFIGS,
    HOP_SAMPLES,
    PATCH_SAMPLES,
    SAMPLE_RATE_HZ,
    ModelConfig,
    get_config,
)
from satpipe.sat.model.exportable import ChunkTagger, WindowLogMel
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.weights.published import save
from satpipe.sat.weights.registry import load_checkpoint
from small_models import FULL_CONTEXT, SMALL, TINY, model_of
from torch import Tensor

EXAMPLES = ROOT / "examples" / "recordings"
SPEECH = EXAMPLES / "speech_16k_mono.WAV"
RECORDING = sound(40_000)
TWO_BLOCKS = [  # of each kind a model as wide as a published one
    replace(get_config(name), depth=2) for name in ("SAT_S_2s", "SAT_S_1s", "audiotransformer_small")
]


@cache
def tagger_of(config: ModelConfig) -> ChunkTagger:
    return ChunkTagger(model_by_rule(config)).eval()


def in_torch(tagger: ChunkTagger, junk: float = 0.0) -> Call:
    """The module as if it were a file; `junk` stands in what it should not look at."""

    @torch.inference_mode()
    def call(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        samples, length, chunk, *memory = (torch.from_numpy(value.copy()) for value in inputs.values())
        samples[256 + int(length) :] = junk
        if chunk == 0:
            samples[:256] = junk
            memory = [torch.full_like(before, junk) for before in memory]
        return [output.numpy() for output in tagger(samples, length, chunk, *memory)]

    return call


def scores_of(call: Call, config: ModelConfig, recording: Tensor) -> Tensor:
    return torch.from_numpy(score(call, config, recording.numpy()))


# The module


@settings(max_examples=30, deadline=None)
@given(
    config=st.sampled_from(SMALL),
    length=st.integers(1, len(RECORDING))
    | st.builds(
        lambda parts, size, more: min(len(RECORDING), max(1, parts * size + more)),
        st.integers(0, 7),
        st.sampled_from([TINY.chunk_samples, PATCH_SAMPLES]),
        st.integers(-1, 1) | st.integers(95, 98),  # a window ends 96 samples after its chunk
    ),
    junk=st.sampled_from([0.0, 0.7]),
)
def test_chunk_by_chunk_the_module_gives_the_scores_of_the_stream(
    config: ModelConfig, length: int, junk: float
) -> None:
    tagger = tagger_of(config)
    recording = RECORDING[:length]
    assert_scores_of(tagger.model, recording, scores_of(in_torch(tagger, junk), config, recording))


def test_a_length_far_past_the_window_means_that_the_end_is_not_in_it() -> None:
    tagger, window = tagger_of(TINY), torch.cat([torch.zeros(256), RECORDING[: TINY.chunk_samples + 96]])
    memory = torch.zeros(TINY.depth, TINY.memory_tokens, TINY.width)
    with torch.inference_mode():
        found, _ = tagger(window, torch.tensor([2**62]), torch.tensor([0]), memory)
    exact, within = exact_scores(tagger.model, RECORDING)
    assert_same_scores(found, exact[0], within)


SECOND = torch.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
HARD = {  # where a tone alone is loud, the other bands hold what rounding leaves
    "digital silence": torch.zeros(SAMPLE_RATE_HZ),
    "last bits": torch.randint(-1, 2, (SAMPLE_RATE_HZ,), generator=torch.Generator().manual_seed(0)) / 32768,
    "a tone at full scale": (2 * torch.pi * 1000 * SECOND).sin(),
    "a tone at full scale, then silence": (2 * torch.pi * 437.3 * SECOND).sin() * (SECOND < 0.5),
    "a tone that is hardly there": 1e-5 * (2 * torch.pi * 437.3 * SECOND).sin(),
    "a constant": torch.full((SAMPLE_RATE_HZ,), 0.5),
    "clipped noise": (3 * sound(SAMPLE_RATE_HZ)).sign(),
}


@pytest.mark.parametrize("name", HARD)
def test_near_the_floor_too_the_front_end_is_as_exact_as_an_fft(name: str) -> None:
    samples, frames = HARD[name], 96

    def log_mel(front_end: LogMel, samples: Tensor) -> Tensor:
        return clamp_dynamic_range(front_end(samples)[:, :frames])

    exact = log_mel(LogMel().double(), samples.double())
    window = torch.cat([torch.zeros(256), samples])[: 256 + frames * HOP_SAMPLES + 96]
    end, patches = torch.tensor([len(window)]), torch.tensor([7])  # not in the window
    found = WindowLogMel(frames)(window, end, patches, torch.tensor([0]))
    ours, of_fft = (float((values - exact).abs().mean()) for values in (found, log_mel(LogMel(), samples)))
    assert ours < 3 * of_fft + 2e-5
    model = load_checkpoint(BUNDLED).model()
    recording = samples.repeat(3)
    assert_scores_of(model, recording, scores_of(in_torch(ChunkTagger(model)), model.config, recording))


# Files


@pytest.fixture(scope="module")
def bundled(satpipe: Satpipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The bundled model exported by the command, and what that printed."""
    path = tmp_path_factory.mktemp("bundled") / "sat.onnx"
    done = satpipe("export", BUNDLED, "-o", path, "--check", SPEECH, "--check", EXAMPLES / "airport")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return path, done.stdout


@pytest.mark.slow
def test_in_onnx_runtime_the_bundled_model_gives_the_scores_of_python(bundled: tuple[Path, str]) -> None:
    path, printed = bundled
    found = difference(open_onnx(path), load_checkpoint(BUNDLED).model(), read((str(EXAMPLES),)))
    assert found.chunks > 50
    model = load_checkpoint(BUNDLED).model()
    within = max(exact_scores(model, torch.from_numpy(samples))[1] for samples in read((str(EXAMPLES),)))
    assert found.largest <= within <= TOLERANCE
    assert found.same_top == 1
    assert f"{path}: SAT_T_2s, fp32, {path.stat().st_size / 1e6:.1f} MB, 1.92 s per call" in printed
    assert "the highest class is the same in 100.0% of chunks" in printed
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.slow
def test_the_file_says_all_that_it_takes_to_use_it(bundled: tuple[Path, str]) -> None:
    model = onnx.load(bundled[0])
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    checkpoint = load_checkpoint(BUNDLED)
    assert about["sha256"] == checkpoint.sha256
    assert (about["model"], about["licence"], about["precision"]) == ("SAT_T_2s", "Apache-2.0", "fp32")
    assert (about["rate_hz"], about["chunk_samples"], about["window_samples"]) == ("16000", "30720", "31072")
    assert json.loads(about["labels"]) == [[label.mid, label.name] for label in weak_labels()]
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "samples": [31072], "length": [1], "chunk": [1], "memory": [12, 48, 192],
        "scores": [527], "next_memory": [12, 48, 192],
    }  # fmt: skip
    assert {node.domain for node in model.graph.node} == {""}, "operations of ONNX itself only"
    assert str(ROOT).encode() not in bundled[0].read_bytes()


@pytest.mark.slow
def test_the_published_streaming_model_of_one_second_gives_its_scores(tmp_path: Path) -> None:
    save(model_by_rule(get_config("SAT_T_1s")), tmp_path / "model.safetensors", licence="mine")
    done = export(ExportOptions(str(tmp_path / "model.safetensors"), tmp_path / "sat.onnx"))
    assert done.difference.largest <= 1e-5
    assert done.metadata["licence"] == "mine"
    assert done.metadata["sha256"] == sha256_of(tmp_path / "model.safetensors")
    found = scores_of(open_onnx(done.path), get_config("SAT_T_1s"), parity_waveform())
    exact, within = exact_scores(parity_model("SAT_T_1s"), parity_waveform())
    assert_same_scores(found, exact, within)


def export_small(config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: object) -> Exported:
    """Export a model by rule of a configuration that has no name."""
    monkeypatch.setitem(CONFIGS, config.name, config)
    save(model_by_rule(config), tmp_path / "model.safetensors")
    options = {"check": (str(SPEECH),), **given}
    return export(ExportOptions(str(tmp_path / "model.safetensors"), tmp_path / "out", **options))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("config", TWO_BLOCKS, ids=lambda config: config.name)
def test_every_kind_of_model_gives_its_scores_as_onnx(
    config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_small(config, tmp_path, monkeypatch).path
    recording = parity_waveform()[: 3 * config.chunk_samples + 5000]
    assert_scores_of(model_of(config), recording, scores_of(open_onnx(path), config, recording))


@pytest.mark.slow
@pytest.mark.parametrize("config", SMALL[:4], ids=lambda config: config.name)
def test_every_kind_of_model_gives_its_scores_as_torchscript(
    config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = export_small(config, tmp_path, monkeypatch, format="torchscript")
    found = scores_of(open_torchscript(done.path), config, RECORDING)
    assert_scores_of(model_of(config), RECORDING, found)
    code = (
        "import json, torch; extra = {'metadata.json': ''}; "
        f"torch.jit.load({str(done.path)!r}, _extra_files=extra); print(extra['metadata.json'].decode())"
    )
    alone = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout) == done.metadata


def test_a_full_context_model_reads_what_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(FULL_CONTEXT, name="longer", time_positions=12)
    done = export_small(config, tmp_path, monkeypatch, format="torchscript", delay_s=0.5)
    assert done.metadata["chunk_samples"] == "7680"
    found = scores_of(open_torchscript(done.path), config.with_delay(0.5), RECORDING)
    assert_scores_of(model_of(config.with_delay(0.5)), RECORDING, found)


@pytest.mark.slow
def test_int8_tells_what_it_costs(bundled: tuple[Path, str], satpipe_here: Satpipe, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    done = satpipe_here("export", BUNDLED, "--format", "onnx", "--int8", "-o", path, "--check", SPEECH)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size < bundled[0].stat().st_size / 3
    found = difference(open_onnx(path), load_checkpoint(BUNDLED).model(), read((str(SPEECH),)))
    assert TOLERANCE < found.largest < 0.05
    assert found.mean < 5e-4
    assert f"largest difference {found.largest:.1e}, mean {found.mean:.1e}" in done.stdout
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (about["precision"], about["sha256"]) == ("int8", load_checkpoint(BUNDLED).sha256)


# The example


@pytest.mark.slow
def test_the_example_prints_the_rows_of_tag_without_torch_and_satpipe(
    bundled: tuple[Path, str], satpipe_here: Satpipe, tmp_path: Path
) -> None:
    done = satpipe_here("tag", SPEECH, "-o", tmp_path / "out", "--no-scores")
    assert done.returncode == 0, done.stderr
    wanted = pd.read_parquet(tmp_path / "out" / "tags").astype({"mid": str, "label": str})
    rows = list(csv.DictReader(io.StringIO(run_example(bundled[0], SPEECH, tmp_path).stdout)))
    assert len(rows) == len(wanted) > 5
    for row, (_, tag) in zip(rows, wanted.iterrows(), strict=True):
        assert (int(row["chunk"]), row["mid"], row["label"]) == (tag.chunk, tag.mid, tag.label)
        assert (float(row["start_s"]), float(row["end_s"])) == (tag.start_s, tag.end_s)
        assert float(row["score"]) == pytest.approx(tag.score, abs=1e-4)


@pytest.mark.slow
def test_the_example_says_that_another_rate_takes_resampling(bundled: tuple[Path, str], tmp_path: Path) -> None:
    done = run_example(bundled[0], EXAMPLES / "drums_44k1_stereo.flac", tmp_path)
    assert done.returncode == 1
    assert "44100 Hz: resample it to 16000 Hz" in done.stderr


def run_example(model: Path, recording: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run it with no packages but those it names and what they need."""
    packages = tmp_path / "packages"
    packages.mkdir()
    site = Path(np.__file__).parent.parent
    for pattern in ("numpy*", "onnxruntime*", "*soundfile*", "*cffi*", "typing_extensions.py"):
        for path in site.glob(pattern):
            (packages / path.name).symlink_to(path)
    code = f"""
import importlib.util, runpy, sys
sys.path.append({str(packages)!r})
assert not any(importlib.util.find_spec(name) for name in ("torch", "sat", "pipeline", "pyarrow", "onnx"))
sys.argv = ["tag.py", {str(model)!r}, {str(recording)!r}]
runpy.run_path({str(ROOT / "examples" / "device" / "tag.py")!r})
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)


def test_the_example_is_short() -> None:
    assert len((ROOT / "examples" / "device" / "tag.py").read_text().splitlines()) <= 40


# What cannot work


def refused(kind: type[Exception], message: str, model: str, out: Path, **given: object) -> None:
    before = set(out.parent.iterdir()) if out.parent.is_dir() else set()
    with pytest.raises(kind, match=message):
        export(ExportOptions(model, out, **given))  # type: ignore[arg-type]
    assert not out.parent.is_dir() or set(out.parent.iterdir()) == before, "something was left there"


def test_options_that_cannot_work(tmp_path: Path) -> None:
    out = tmp_path / "sat"
    refused(ConfigError, "--format must be onnx or torchscript, not 'tflite'", BUNDLED, out, format="tflite")
    refused(ConfigError, "add --format onnx", BUNDLED, out, format="torchscript", int8=True)
    refused(ConfigError, "SAT_T_2s has a delay of 2 s.*needs a full-context model", BUNDLED, out, delay_s=1)
    refused(ConfigError, "model or file 'SAT_T2s' not found; did you mean SAT_T_2s", "SAT_T2s", out)
    refused(CheckpointError, "satpipe models pull SAT_B_2s", "SAT_B_2s", out)
    refused(ConfigError, "'ast' cannot be exported: only SAT models can be", "ast:hf://owner/ast", out)


def test_a_file_that_is_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    refused(CheckpointError, "other.pt fits no configuration", str(tmp_path / "other.pt"), tmp_path / "sat.onnx")


def test_a_folder_that_cannot_be_written_is_one_clear_line(satpipe_here: Satpipe, tmp_path: Path) -> None:
    refused(OutputError, "nowhere/sat.onnx cannot be written: No such file", BUNDLED, tmp_path / "nowhere" / "sat.onnx")
    (tmp_path / "file").touch()
    done = satpipe_here("export", BUNDLED, "-o", tmp_path / "file" / "sat.onnx")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "OutputError" in done.stderr
    assert "file/sat.onnx cannot be written: Not a directory" in done.stderr


def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(
        ConfigError,
        r"needs onnxscript; install the extra export: pip install '\.\[export\]'",
        BUNDLED,
        tmp_path / "sat.onnx",
    )


def test_recordings_to_check_on_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, out = tmp_path / "check.wav", tmp_path / "sat.onnx"
    refused(ConfigError, "check.wav", BUNDLED, out, check=(str(recording),))
    recording.write_bytes(b"no audio")
    with pytest.raises(AudioError, match="check.wav: "):
        export_small(TINY, tmp_path, monkeypatch, format="torchscript", check=(str(recording),))
    assert {path.name for path in tmp_path.iterdir()} == {"check.wav", "model.safetensors"}


def test_scores_that_are_not_the_models_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ChunkTagger):
        def __init__(self, model: SAT) -> None:
            super().__init__(model)
            self.log_mel.cosines *= 1.01

    monkeypatch.setattr("satpipe.jobs.export.job.ChunkTagger", Other)
    with pytest.raises(OutputError, match="was not written: its scores differ"):
        export_small(TINY, tmp_path, monkeypatch, format="torchscript")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


# The benchmark


@pytest.mark.slow
def test_size_and_speed_are_measured_as_the_readme_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, TINY.name, TINY)
    threads = torch.get_num_threads()
    try:
        measured = benchmark_export.benchmark(str(SPEECH), (TINY.name,), seconds=6)
    finally:
        torch.set_num_threads(threads)
    told = json.loads((ROOT / "reports" / "benchmark_export.json").read_text())
    assert [model["name"] for model in told["models"]] == list(benchmark_export.MODELS)
    assert measured.keys() == told.keys()
    for model in (*measured["models"], *told["models"]):
        assert model.keys() == told["models"][0].keys()
        assert model["x_realtime"].keys() == {"torch", "onnx", "int8", "torchscript"}
        assert all(x_realtime > 0 for x_realtime in model["x_realtime"].values())
        assert model["size_bytes"]["int8"] < model["size_bytes"]["onnx"]
        assert model["difference"]["onnx"]["largest"] <= TOLERANCE
