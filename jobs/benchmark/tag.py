"""`satpipe benchmark tag`: speed of tagging on this machine, compared with the plain loop, as JSON.

One run measures everything, so that the ratios hold even if other work slows the machine down.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
import soxr
import torch
from satpipe.jobs.benchmark import parts
from satpipe.jobs.benchmark.common import SATPIPE, Say, dated, random_weights, sound_of
from satpipe.jobs.options.measure import BenchmarkOptions, Device
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.job import describe, make_run
from satpipe.jobs.tag.plan import plan
from satpipe.pipeline import ray_engine
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.model.config import BUNDLED, CLASSES, CUTS, SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import PRECISIONS
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.weights.checkpoint import Checkpoint, load
from satpipe.sat.weights.registry import load_checkpoint

LOOP_BLOCK_S = 2  # read at a time by the published inference script
COMPARED_S = 300
FLAC_S = 900
SHORT_S = 10
SIZES_S = {"SAT_S_2s": 300, "SAT_B_2s": 120}  # the larger models, and the audio they are measured on
ON_CPUS = ("fp32", "bf16")
YEAR_H = 8766
Tag = Callable[..., tuple[float, dict[str, float]]]
"""Tags a file into a folder; returns the elapsed seconds, and the workers' seconds by stage."""


def benchmark(recordings: Path, hours: float, say: Say, device: Device = BenchmarkOptions.device) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        recordings: Folder of recordings whose sound is repeated until it has the given length.
        hours: Length of the recording to tag.
        say: Called with the name of each measurement before it starts.
        device: `cpu`, or `cuda` for `satpipe tag` on GPUs; the loop always runs on CPUs.

    Raises:
        ConfigError: The folder contains no recordings, or the machine has no GPU.
    """
    checkpoint = load_checkpoint(BUNDLED)
    duration_s = int(hours * 3600)
    with TemporaryDirectory() as name:
        folder = Path(name)
        say(f"making {hours:g} h of 16 kHz WAV and {FLAC_S} s of 48 kHz stereo FLAC")
        sound = sound_of(recordings)
        wav, flac, part, short = (folder / name for name in ("hour.wav", "stereo.flac", "part.wav", "short.wav"))
        _write(short, sound, SHORT_S, SAMPLE_RATE_HZ, 1)
        _write(wav, sound, duration_s, SAMPLE_RATE_HZ, 1)
        _write(part, sound, COMPARED_S, SAMPLE_RATE_HZ, 1)
        _write(flac, sound, FLAC_S, 48_000, 2)
        say("start-up")
        start_up = {"help_s": _command("--help"), "one_file_s": _command("tag", short, "-o", folder / "one")}
        say("each part alone, on one CPU")
        config = checkpoint.config
        alone = parts.parts(wav, flac, folder / "written", config)
        say("the plain loop: one chunk at a time, all CPUs")
        loop_s, loop_scores = _loop(checkpoint, wav, duration_s)
        begun = perf_counter()
        with _workers(device) as tag:
            start_s = perf_counter() - begun
            begun = perf_counter()
            tag(part, folder / "first", span_s=_span_s(COMPARED_S, 20))
            first_s = perf_counter() - begun
            runs = {}
            for cut, precision in product(CUTS[::-1], PRECISIONS if device == "cuda" else ON_CPUS):
                say(f"satpipe tag, {cut}, {precision}")
                tag(part, folder / "warm", cut=cut, precision=precision, span_s=_span_s(COMPARED_S, 20))
                out = folder / f"{cut}-{precision}"
                elapsed_s, seconds = tag(wav, out, cut=cut, precision=precision)
                runs[f"{cut} {precision}"] = {"x_realtime": duration_s / elapsed_s, "worker_s": seconds}
            for precision in ON_CPUS:
                say(f"satpipe tag, 48 kHz stereo FLAC, {precision}")
                tag(part, folder / "warm", precision=precision, span_s=_span_s(COMPARED_S, 20))
                elapsed_s, seconds = tag(flac, folder / "flac", precision=precision, span_s=_span_s(FLAC_S))
                name = f"gapless {precision}, 48 kHz stereo FLAC"
                runs[name] = {"x_realtime": FLAC_S / elapsed_s, "worker_s": seconds}
            larger = {}
            for name, length_s in SIZES_S.items():
                say(f"{name}, random weights")
                larger[name] = _size(name, length_s, sound, folder, tag)
            say("comparing scores")
            tag(part, folder / "all", cut="script", threshold=0.0, top_k=CLASSES, scores=False)
        difference = _difference(folder / "all", loop_scores)
        sizes = {
            table: sum(path.stat().st_size for path in (folder / "gapless-fp32" / table).glob("*.parquet"))
            for table in ("tags", "scores")
        }
    say("the models alone, on one CPU")
    models = {
        f"{name} {precision}": parts.model_parts(SAT(get_config(name)).eval(), precision)
        for name, precision in product((config.name, *SIZES_S), ON_CPUS)
    }
    return dated({
        "versions": describe(TagOptions((), folder), checkpoint)["versions"],
        "model": checkpoint.config.name,
        "hours": hours,
        "loop_x_realtime": duration_s / loop_s,
        "start_up": start_up,
        "parts": alone,
        "models": models,
        "sizes": larger,
        "ray_start_s": start_s,
        "first_run_s": first_s,
        "runs": runs,
        "largest_score_difference": difference,
        "year_bytes": {table: size / hours * YEAR_H for table, size in sizes.items()},
    })  # fmt: skip


def _write(path: Path, sound: Samples, duration_s: int, rate_hz: int, channels: int) -> None:
    once = soxr.resample(sound, SAMPLE_RATE_HZ, rate_hz)
    missing = duration_s * rate_hz
    with soundfile.SoundFile(path, "w", rate_hz, channels, "PCM_16") as file:
        while missing:
            block = once[:missing]
            second = np.roll(block, rate_hz // 100)  # channels must differ
            file.write(np.stack([block, second][:channels], axis=1))
            missing -= len(block)


def _loop(checkpoint: Checkpoint, path: Path, duration_s: int) -> tuple[float, torch.Tensor]:
    """Tag as the published inference script does; return the elapsed seconds and the scores [C, 527]."""
    with threads(os.cpu_count() or 1):
        StreamingTagger(checkpoint.model(), "script").push(torch.zeros(LOOP_BLOCK_S * SAMPLE_RATE_HZ))  # warms up
        tagger = StreamingTagger(checkpoint.model(), "script")
        begun = perf_counter()
        blocks = soundfile.blocks(path, LOOP_BLOCK_S * SAMPLE_RATE_HZ, dtype="float32")
        scores = [tagger.push(torch.from_numpy(block)) for block in blocks]
        return perf_counter() - begun, torch.cat(scores)


def _size(name: str, length_s: int, sound: Samples, folder: Path, tag: Tag) -> dict[str, float]:
    """Measure another model, with random weights: the loop and `satpipe tag` in each precision, x realtime."""
    weights, wav = random_weights(name, folder), folder / f"{name}.wav"
    _write(wav, sound, length_s, SAMPLE_RATE_HZ, 1)
    figures = {"loop": length_s / _loop(load(weights), wav, length_s)[0]}
    span_s = _span_s(length_s)
    for precision in ON_CPUS:
        for out in ("warm", f"{name}-{precision}"):  # the first loads the model
            elapsed_s, _ = tag(wav, folder / out, model=weights, precision=precision, span_s=span_s)
        figures[precision] = length_s / elapsed_s
    return figures


def _span_s(length_s: float, spans: int = os.cpu_count() or 1) -> float:
    """Return the length of spans that divides a recording into a number of spans, at least 10 s."""
    return max(length_s / spans, 10.0)


def _command(*args: object) -> float:
    """Run satpipe as a process; return the elapsed seconds."""
    begun = perf_counter()
    subprocess.run([*SATPIPE, *map(str, args)], check=True, capture_output=True)
    return perf_counter() - begun


@contextmanager
def _workers(device: Device) -> Iterator[Tag]:
    """Start Ray once, and yield a function that tags a file with it."""
    with ray_engine.start(None, None, device) as ray:

        def tag(path: Path, out: Path, **given: Any) -> tuple[float, dict[str, float]]:
            options = TagOptions((str(path),), out, device=device, overwrite=True, **given)
            planned = plan(options)
            output = Output(out)
            description = describe(options, planned.checkpoint)
            with output.claim(description, overwrite=True):
                run = make_run(ray, output, planned, options, description["id"])
                begun = perf_counter()
                run.go(iter(planned.search), planned.remaining, planned.remaining_bytes, lambda progress: None)
                return perf_counter() - begun, dict(run.progress.seconds)

        yield tag


def _difference(out: Path, loop_scores: torch.Tensor) -> float:
    """Return the largest difference between the tags table, which contains all 527 labels, and the loop's scores."""
    table = pq.read_table(out / "tags", columns=["chunk", "mid", "score"]).to_pandas()
    wide = table.pivot(index="chunk", columns="mid", values="score")
    order = [label["mid"] for label in json.loads((out / "run.json").read_text())["labels"]]
    ours = torch.from_numpy(wide[order].to_numpy(dtype=np.float32))
    whole = min(len(ours), COMPARED_S // LOOP_BLOCK_S)
    return float((ours[:whole] - loop_scores[:whole]).abs().max())
