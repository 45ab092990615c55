"""The one interface of all taggers: what `tag` promises holds for them too, at any rate, with memory or without."""

import json
import math
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from audio import recording_of, shorten, write
from conftest import ROOT, Satpipe
from helpers import assert_same_scores, model_by_rule, sound
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.plan import plan
from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.recordings.resample import QUALITY
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.pipeline.tagging import tag_spans as tag
from satpipe.pipeline.tagging.spans import Span, spans_of
from satpipe.sat.errors import CheckpointError, ConfigError, DownloadError, LabelError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import get_config
from satpipe.sat.taggers.cost import MARGIN, TensorMemory, batch_bytes, largest_batch, noise_chunks
from satpipe.sat.taggers.efficientat import EfficientAT
from satpipe.sat.taggers.fastest import compare
from satpipe.sat.taggers.interface import CPU, LoadedExternalTagger, Tagger
from satpipe.sat.taggers.loaded import ExternalConfig
from satpipe.sat.taggers.sat import SATTagger
from satpipe.sat.taggers.waveform_chunks import WaveformChunk
from satpipe.sat.weights.registry import resolve
from small_models import efficientat_state
from torch import Tensor

MIDS = [label.mid for label in weak_labels()]
SMALL = replace(get_config("SAT_T_2s"), name="small", width=24, heads=2, depth=3)


class Level(Tagger):
    """Scores tell the level and the first sample of a piece, those of the second class that of the piece before."""

    rate_hz = 22_050
    warmup_chunks = 1

    def forward(self, waveforms: Tensor) -> Tensor:
        scores = torch.zeros(len(waveforms), 527)
        scores[:, 0], scores[:, 2] = waveforms.square().mean(1).sqrt(), waveforms[:, 0].abs()
        return scores

    def score(self, chunks: Iterable[tuple[Any, WaveformChunk]]) -> Iterator[tuple[Any, Tensor]]:
        before = torch.tensor(0.0)
        for key, piece in chunks:
            score = self.scores(piece.waveform[None])[0]
            score[1] = 0.0 if piece.first else before
            before = score[0].clone()
            yield key, score


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("efficientat") / "weights.pt"
    torch.save(efficientat_state(), path)
    return path


def ready(tagger: Tagger, delay_s: float = 1.0, *, memory: bool = True) -> Tagger:
    config = ExternalConfig("peer", tagger.rate_hz, 10_000, 10_000, warmup_chunks=tagger.warmup_chunks).with_delay(
        delay_s
    )
    return tagger.prepared(config if memory else config.without_memory(), CPU, "fp32", None)


def tagged(unit: list[Span], tagger: Tagger) -> tuple[list[int], Tensor, list[SpanOutcome]]:
    tables: list[Any] = []
    outcomes, _ = tag.tag_task(unit, tagger, tables.append)
    chunks = [chunk for table in tables for chunk in table["chunk"].to_pylist()]
    scores = [np.array(table["scores"].to_pylist(), np.float32) for table in tables]
    return chunks, torch.from_numpy(np.concatenate(scores)) if scores else torch.empty(0, 527), outcomes


def recording(path: Path, rate_hz: int, seconds: float) -> Recording:
    return recording_of(write(path, sound(int(seconds * rate_hz)).numpy() / 4, rate_hz, subtype="FLOAT"))


@pytest.mark.parametrize("rate_hz", [16_000, 32_000, 44_100])
def test_a_peer_scores_pieces_at_its_own_rate(tmp_path: Path, weights: Path, rate_hz: int) -> None:
    tagger = ready(EfficientAT(weights))
    given = recording(tmp_path / "a.wav", rate_hz, 5.3)
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    pieces = torch.from_numpy(soxr.resample(samples, rate_hz, 32_000, quality=QUALITY)).split(32_000)
    expected = torch.cat([tagger.scores(piece[None]) for piece in pieces])
    chunks, scores, (outcome,) = tagged([Span(given)], tagger)
    assert chunks == [0, 1, 2, 3, 4, 5]
    assert expected.std(0).max() > 1e-3
    assert (outcome.status, outcome.frames) == ("ok", given.info.frames)
    assert_same_scores(scores, expected)


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize(("rate_hz", "span_s"), [(16_000, 2.0), (44_100, 3.0), (4_000, 5.0), (48_000, 2.5)])
def test_it_does_not_matter_where_a_recording_is_cut(tmp_path: Path, rate_hz: int, span_s: float, memory: bool) -> None:
    tagger = ready(Level(), 0.4, memory=memory)
    given = recording(tmp_path / "a.wav", rate_hz, 11.1)
    chunks, whole, _ = tagged([Span(given)], tagger)
    spans = spans_of(given, tagger.config, "gapless", span_s)
    assert len(spans) > 2
    cut, scores, _ = tagged(spans, tagger)
    assert chunks == cut == list(range(28))
    assert_same_scores(scores, whole, 1e-6)
    assert bool((whole[1:, 1] == whole[:-1, 0]).all()) is memory


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_recording_may_end_near_the_end_of_a_piece(tmp_path: Path, beyond: int) -> None:
    tagger = ready(Level(), 1.0)
    path = write(tmp_path / "a.wav", sound(3 * 44_100 + 2 * beyond).numpy() / 4, 44_100, subtype="FLOAT")
    given = recording_of(path)
    expected = [0, 1, 2] if beyond < 1 else [0, 1, 2, 3]
    assert tagged([Span(given)], tagger)[0] == expected
    assert tagged(spans_of(given, tagger.config, "gapless", 1.0), tagger)[0] == expected


def test_bad_recordings_and_channels_are_as_with_sat(tmp_path: Path) -> None:
    tagger = ready(Level())
    broken = recording_of(shorten(write(tmp_path / "a.flac", sound(200_000).numpy() / 4), 0.6))
    short = recording_of(write(tmp_path / "b.wav", sound(2000).numpy() / 4))
    gone = recording_of(write(tmp_path / "c.wav", sound(2000).numpy() / 4))
    Path(gone.source.path).unlink()
    both = np.stack([sound(32_000, seed=seed).numpy() / 4 for seed in (1, 2)], 1)
    second = recording_of(write(tmp_path / "d.wav", both, subtype="FLOAT"), 2)
    alone = recording_of(write(tmp_path / "e.wav", both[:, 1], subtype="FLOAT"))
    _, scores, outcomes = tagged([Span(each) for each in (broken, short, gone, second, alone)], tagger)
    assert [outcome.status for outcome in outcomes] == ["truncated", "short", "unreadable", "ok", "ok"]
    assert [outcome.chunks for outcome in outcomes[1:]] == [1, 0, 2, 2]
    assert torch.equal(scores[-2:], scores[-4:-2])


def test_outputs_are_put_into_audiosets_order_by_mid() -> None:
    class Turned(Level):
        mids = (*MIDS[::-1], "/m/other")

        def forward(self, waveforms: Tensor) -> Tensor:
            return torch.arange(528).float().expand(len(waveforms), -1) / 1000

    assert Turned().scores(torch.zeros(1, 5000))[0].tolist() == pytest.approx([n / 1000 for n in range(526, -1, -1)])
    Turned.mids = MIDS
    with pytest.raises(LabelError, match=r"Turned returned scores \[1, 528\] for 527 classes"):
        Turned().scores(torch.zeros(1, 5000))
    Turned.mids = MIDS[1:]
    with pytest.raises(LabelError, match=r"Turned must have the 527 classes .* it has 526 outputs, /m/09x0r missing"):
        _ = Turned().order
    Turned.mids = [*MIDS, MIDS[3]]
    with pytest.raises(LabelError, match="a class twice"):
        _ = Turned().order


@pytest.mark.parametrize(
    ("delay_s", "reason"),
    [
        (0.1, "must be 0.16 s to 10 s"),
        (10.5, "must be 0.16 s to 10 s"),
        (0.5005, "whole milliseconds"),
        (0.501, "whole samples at 22,050 Hz"),
    ],
)
def test_a_delay_that_cannot_be_is_refused(delay_s: float, reason: str) -> None:
    config = ExternalConfig("level", 22_050, 10_000, 10_000)
    with pytest.raises(ConfigError, match=reason):
        config.with_delay(delay_s)


def test_a_model_is_one_string(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, bare = resolve(f"efficientat:{weights}"), resolve(str(weights))
    assert named.sha256 == bare.sha256
    assert resolve("bundled").config.name == "SAT_T_2s"
    with pytest.raises(CheckpointError, match=r"ast needs weights: ast:FOLDER, or ast:hf://MIT/ast-finetuned"):
        resolve("ast")
    with pytest.raises(ConfigError, match="tagger 'beast' not found; did you mean beats"):
        resolve("beast:x.pt")
    with pytest.raises(ConfigError, match="--arch applies only to SAT"):
        resolve(f"efficientat:{weights}", "SAT_T_2s")
    with pytest.raises(CheckpointError, match="is not an EfficientAT network"):
        resolve(f"efficientat:{ROOT / 'sat' / 'data' / 'bundled.safetensors'}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for address in ("hf://MIT/ast-that-is-not-there", "hf://a b/c", "hf://MIT/ast/file.bin"):
        with pytest.raises(DownloadError, match=r"could not be downloaded: .*; you can name a local file or folder"):
            resolve(f"ast:{address}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ConfigError, match=r"AST needs transformers; install the extra taggers: pip install '\.\[taggers\]'"
    ):
        resolve(f"ast:{weights.parent}")


@pytest.mark.slow
@pytest.mark.parametrize("limit_bytes", [300_000, 1_000_000, 2_500_000])
def test_a_batch_takes_no_more_memory_than_it_may(limit_bytes: int) -> None:
    tagger = SATTagger(model_by_rule(SMALL))
    batch = largest_batch(tagger, limit_bytes)
    assert 1 <= batch < 32
    assert MARGIN * batch_bytes(tagger, batch + 1) > limit_bytes
    tagger = SATTagger(model_by_rule(SMALL), batch_chunks=batch)
    lengths = [5, 6.3, 40, *[1, 1.2, 2, 3.7] * 20, 11]
    chunks = [chunk for seed, length in enumerate(lengths) for chunk in noise_chunks(tagger, length, seed)]
    with TensorMemory() as memory:
        assert sum(1 for _ in tagger.score(enumerate(chunks))) == len(chunks)
    assert 0.5 * limit_bytes < memory.peak_bytes <= limit_bytes


def test_a_peers_batch_too(weights: Path) -> None:
    tagger = ready(EfficientAT(weights))
    four = math.ceil(MARGIN * batch_bytes(tagger, 4))
    tagger.batch_chunks = 4
    assert largest_batch(tagger, four) == 4
    tagger.batch_chunks = 4
    assert largest_batch(tagger, four - 1) == 3
    with pytest.raises(ConfigError, match="one chunk of peer needs .* MB, more than the 0.1 MB of --max-batch-memory"):
        largest_batch(tagger, 100_000)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    write(folder / "a.wav", sound(16_000 * 25).numpy() / 4)
    write(folder / "b.flac", np.stack([sound(44_100 * 3, seed=s).numpy() / 4 for s in (1, 2)], 1), 44_100)
    shorten(write(folder / "c.flac", sound(16_000 * 9).numpy() / 4), 0.7)
    return folder


@pytest.mark.slow
def test_tag_runs_an_external_tagger_on_ray(
    satpipe_here: Satpipe, recordings: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("tag", recordings, "-o", out, "--model", f"efficientat:{weights}")
    options = ("--delay", 2, "--channels", "split", "--span-s", 10, "--max-batch-memory", "8MB")
    done = satpipe_here(*command, *options)
    assert done.returncode == 3, done.stderr
    assert "efficientat, 2 s delay, no memory" in done.stdout
    table = pd.read_parquet(out / "scores").astype({"recording": str})
    assert dict(table.recording.value_counts().drop("c.flac")) == {"a.wav": 13, "b.flac#ch1": 2, "b.flac#ch2": 2}
    rows = table[table.recording == "a.wav"].sort_values("chunk")
    assert rows.start_s.tolist() == [2.0 * n for n in range(13)]
    assert rows.end_s.iloc[-1] == 25.0
    tagger = ready(EfficientAT(weights), 2.0)
    _, expected, _ = tagged([Span(recording_of(recordings / "a.wav"))], tagger)
    ours = np.stack(rows.scores.tolist()).astype(np.float32)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=2**-10, atol=1e-5)
    run = json.loads((out / "run.json").read_text())
    assert run["identity"] | {"arch": "efficientat", "delay_s": 2.0, "memory": "off"} == run["identity"]
    assert run["identity"]["model_sha256"] == resolve(str(weights)).sha256
    assert Tables(out).model["chunk_samples"] == 32_000
    again = satpipe_here(*command, *options)
    assert (again.returncode, "to tag: 0 (0.0 MB)" in again.stdout) == (3, True)
    other = satpipe_here(*command, "--delay-s", 1, "--channels", "split")
    assert (other.returncode, "was made with another delay_s 2.0, now 1.0" in other.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cut": "script"}, "efficientat reads whole waveforms: leave --cut out"),
        ({"delay_s": 12.0}, "the delay of efficientat must be 0.16 s to 10 s, not 12 s"),
        ({"max_batch_memory": "much"}, "--max-batch-memory must be a size such as 256MB or 1.5GB, not 'much'"),
        ({"max_batch_memory": "1KB"}, "MB, more than the 0.0 MB of --max-batch-memory"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    recordings: Path, weights: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        plan(TagOptions((str(recordings),), tmp_path / "out", model=f"efficientat:{weights}", **options))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example as pip would install it, and what makes Python see it."""
    site, example = tmp_path_factory.mktemp("site"), ROOT / "examples" / "tagger"
    shutil.copy(example / "loudness.py", site)
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    entries = [f"{name} = {target}" for name, target in project["entry-points"]["satpipe.taggers"].items()]
    register(site, project["name"], entries)
    return {"PYTHONPATH": str(site)}


def register(site: Path, name: str, entries: list[str]) -> None:
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("\n".join(["[satpipe.taggers]", *entries, ""]))


@pytest.mark.slow
def test_a_tagger_of_ones_own_is_one_more_model(
    satpipe: Satpipe, recordings: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "half.txt").write_text("-30")
    model = f"loudness:{tmp_path / 'half.txt'}"
    done = satpipe("tag", recordings, "-o", tmp_path / "out", "--model", model, env=installed)  # Ray starts here
    assert done.returncode == 3, done.stderr
    table = pd.read_parquet(tmp_path / "out" / "tags").astype({"recording": str, "label": str})
    rows = table[(table.recording == "a.wav") & (table.label == "Noise")].sort_values("chunk")
    level_db = [10 * np.log10(np.mean(part**2)) for part in np.split(soundfile.read(recordings / "a.wav")[0], 25)]
    assert rows.chunk.tolist() == list(range(25))
    np.testing.assert_allclose(rows.score, 1 / (1 + np.exp(-(np.array(level_db) + 30) / 6)), atol=1e-2)
    unknown = satpipe("tag", recordings, "-o", tmp_path / "other", "--model", model)
    assert (unknown.returncode, "tagger 'loudness' not found" in unknown.stderr) == (1, True)


def test_what_is_registered_must_be_a_tagger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, "odd", ["no-module = nowhere:X", "no-name = json:nothing", "no-tagger = pathlib:PurePath"])
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("no-module", "no-name"):
        with pytest.raises(ConfigError, match=f"the tagger '{name}' of odd cannot be imported"):
            resolve(name)
    with pytest.raises(ConfigError, match="'no-tagger' must return a satpipe Tagger, not a PurePosixPath"):
        resolve(f"no-tagger:{tmp_path}")


@pytest.mark.slow
def test_nothing_is_imported_before_it_is_named() -> None:
    code = (
        "import sys, satpipe.sat.weights.registry; print("
        "{'transformers', 'huggingface_hub', 'satpipe.sat.taggers.ast'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_a_peer_runs_in_half_precision(weights: Path) -> None:
    peer = resolve(str(weights)).adapted(1.0)
    waveforms = sound(32_000)[None] / 4
    full = peer.tagger().scores(waveforms)
    assert full.std() > 0.03
    assert_same_scores(peer.tagger(precision="bf16").scores(waveforms), full, 0.02)
    assert torch.equal(peer.tagger().scores(waveforms), full)  # its weights are not rounded
    with pytest.raises(ConfigError, match="peer does not support --precision bf16; omit the option"):
        Level().prepared(ExternalConfig("peer", 22_050, 1000, 1000), CPU, "bf16", None)
    assert {*compare(peer, "auto", "gapless", CPU, 1).speeds} == {"bf16"}
    level = LoadedExternalTagger(
        config=ExternalConfig("peer", 22_050, 1000, 1000), sha256="", source="", metadata={}, instance=Level()
    )
    assert compare(level, "auto", "gapless", CPU).fastest == "fp32"
