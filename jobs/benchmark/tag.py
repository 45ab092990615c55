"""`satpipe benchmark tag`: speed of tagging on this machine, compared with its limits and a plain loop, as JSON.

What is compared is measured in turns, several rounds in one run, and ratios are those within a round: so they hold even
if other work slows the machine down.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
import torch
from satpipe.jobs.benchmark import parts
from satpipe.jobs.benchmark.common import SATPIPE, Say, dated, random_weights, sound_of
from satpipe.jobs.benchmark.reading import STEREO, reading, write, write_stereo
from satpipe.jobs.options.measure import BenchmarkOptions, Device
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.job import describe, make_run
from satpipe.jobs.tag.plan import plan
from satpipe.pipeline import ray_engine
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.model.config import AUTO, BUNDLED, CLASSES, CUTS, SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import PRECISIONS
from satpipe.sat.model.streaming import StreamingTagger
from satpipe.sat.taggers.fastest import compare
from satpipe.sat.taggers.interface import CPU
from satpipe.sat.weights.checkpoint import Checkpoint, load
from satpipe.sat.weights.registry import load_checkpoint

ROUNDS = 3
LOOP_BLOCK_S = 2  # read at a time by the published inference script
LOOP_S = 600
ALONE_S = 3.0  # that the model runs alone on each worker
COMPARED_S = 300
SLOW_S = 600  # tagged instead of the whole recording where that would take more than a minute
MAX_TAG_S = 60.0
MIN_SHARE_OF_FP32 = 0.5  # of the model's speed; a slower precision is measured in the first round only
FLAC_S = 900
COMPRESSED_S = 60
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
    precisions = tuple(PRECISIONS) if device == "cuda" else ON_CPUS
    with TemporaryDirectory() as name:
        folder = Path(name)
        say(f"making {hours:g} h of 16 kHz WAV, and 48 kHz stereo FLAC, MP3, Opus and AAC")
        sound = sound_of(recordings)
        wav, part, minutes, short = (
            write(folder / f"{length_s}.wav", sound, length_s, SAMPLE_RATE_HZ, 1)
            for length_s in (duration_s, COMPARED_S, SLOW_S, SHORT_S)
        )
        files = write_stereo(sound, folder, FLAC_S, COMPRESSED_S)
        say("start-up")
        start_up = {"help_s": _command("--help"), "one_file_s": _command("tag", short, "-o", folder / "one")}
        say("each part alone, on one CPU")
        alone = parts.parts(folder / "written", checkpoint.config)
        read = reading({"16 kHz mono WAV": wav} | files)
        say("the models alone, on one CPU")
        models = {
            f"{name} {precision}": parts.model_parts(SAT(get_config(name)).eval(), precision)
            for name, precision in product((checkpoint.config.name, *SIZES_S), ON_CPUS)
        }
        with threads(1):
            chosen = compare(checkpoint, AUTO, "gapless", CPU)
        begun = perf_counter()
        with _workers(device) as (tag, model_speed):
            start_s = perf_counter() - begun
            begun = perf_counter()
            tag(part, folder / "first", span_s=_span_s(COMPARED_S, 20))
            first_s = perf_counter() - begun
            rounds: list[dict[str, float]] = []
            tagged_s: dict[str, float] = {}
            worker_s: dict[str, dict[str, float]] = {}
            for number in range(ROUNDS):
                say(f"round {number + 1} of {ROUNDS}: the plain loop, one chunk at a time, all CPUs")
                loop_s, loop_scores = _loop(checkpoint, wav, min(LOOP_S, duration_s))
                rounds.append({"loop": min(LOOP_S, duration_s) / loop_s})
                for precision in _worthwhile(precisions, rounds[0]):
                    say(f"round {number + 1} of {ROUNDS}: the model alone and satpipe tag, {precision}")
                    rounds[-1][f"model {precision}"] = speed = model_speed(checkpoint, precision)
                    tag(part, folder / "warm", precision=precision, span_s=_span_s(COMPARED_S, 20))
                    mono = (minutes, SLOW_S) if duration_s > max(SLOW_S, MAX_TAG_S * speed) else (wav, duration_s)
                    runs = {f"{cut} {precision}": (*mono, cut) for cut in CUTS[::-1]}
                    runs[f"gapless {precision}, {STEREO}"] = (files[STEREO], FLAC_S, "gapless")
                    for run, (path, length_s, cut) in runs.items():
                        tagged_s[run] = length_s
                        elapsed_s, worker_s[run] = tag(path, folder / run, cut=cut, precision=precision)
                        rounds[-1][run] = length_s / elapsed_s
            larger = {}
            for name, length_s in SIZES_S.items():
                say(f"{name}, random weights")
                larger[name] = _size(name, length_s, sound, folder, tag, _worthwhile(precisions, rounds[0]))
            say("comparing scores")
            tag(part, folder / "all", cut="script", threshold=0.0, top_k=CLASSES, scores=False)
        difference = _difference(folder / "all", loop_scores)
        sizes = {
            table: sum(path.stat().st_size for path in (folder / "gapless fp32" / table).glob("*.parquet"))
            for table in ("tags", "scores")
        }
    return dated({
        "versions": describe(TagOptions((), folder), checkpoint)["versions"],
        "model": checkpoint.config.name,
        "hours": hours,
        "rounds": ROUNDS,
        "loop_x_realtime": median(each["loop"] for each in rounds),
        "start_up": start_up,
        "parts": alone,
        "reading": read,
        "models": models,
        "auto": {"precision": chosen.fastest, "times_fp32": chosen.speeds},
        "sizes": larger,
        "ray_start_s": start_s,
        "first_run_s": first_s,
        "model_x_realtime": {name: _median(rounds, f"model {name}") for name in precisions},
        "runs": {
            name: {"duration_s": tagged_s[name], **_run(name, rounds), "worker_s": worker_s[name]} for name in worker_s
        },
        "largest_score_difference": difference,
        "year_bytes": {table: size / tagged_s["gapless fp32"] * 3600 * YEAR_H for table, size in sizes.items()},
    })  # fmt: skip


def _worthwhile(precisions: Iterable[str], measured: dict[str, float]) -> list[str]:
    """Return the precisions without those that one round has shown to be much slower than fp32."""
    slowest = measured.get("model fp32", 0.0) * MIN_SHARE_OF_FP32
    return [name for name in precisions if measured.get(f"model {name}", slowest) >= slowest]


def _median(rounds: Iterable[dict[str, float]], name: str) -> float:
    """Return the median over the rounds in which it was measured."""
    return median(each[name] for each in rounds if name in each)


def _run(name: str, rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the speed of a run, and its ratios to the loop and to the model alone on all workers."""
    precision = name.split()[1].rstrip(",")
    rounds = [each for each in rounds if name in each]
    return {
        "x_realtime": _median(rounds, name),
        "times_loop": median(each[name] / each["loop"] for each in rounds),
        "share_of_model": median(each[name] / each[f"model {precision}"] for each in rounds),
    }


def _loop(checkpoint: Checkpoint, path: Path, duration_s: int) -> tuple[float, torch.Tensor]:
    """Tag the beginning as the published inference script does; return the elapsed seconds and the scores [C, 527]."""
    with threads(os.cpu_count() or 1):
        StreamingTagger(checkpoint.model(), "script").push(torch.zeros(LOOP_BLOCK_S * SAMPLE_RATE_HZ))  # warms up
        tagger = StreamingTagger(checkpoint.model(), "script")
        begun = perf_counter()
        frames = duration_s * SAMPLE_RATE_HZ
        blocks = soundfile.blocks(path, LOOP_BLOCK_S * SAMPLE_RATE_HZ, dtype="float32", frames=frames)
        scores = [tagger.push(torch.from_numpy(block)) for block in blocks]
        return perf_counter() - begun, torch.cat(scores)


def _size(
    name: str, length_s: int, sound: Samples, folder: Path, tag: Tag, precisions: Iterable[str]
) -> dict[str, float]:
    """Measure another model, with random weights: the loop and `satpipe tag` in each precision, x realtime."""
    weights = random_weights(name, folder)
    wav = write(folder / f"{name}.wav", sound, length_s, SAMPLE_RATE_HZ, 1)
    figures = {"loop": length_s / _loop(load(weights), wav, length_s)[0]}
    span_s = _span_s(length_s)
    for precision in precisions:
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
def _workers(device: Device) -> Iterator[tuple[Tag, Callable[[Checkpoint, str], float]]]:
    """Start Ray once; yield a function that tags a file with it, and one that runs the model alone on all workers."""
    with ray_engine.start(None, None, device) as ray:

        def tag(path: Path, out: Path, **given: Any) -> tuple[float, dict[str, float]]:
            options = TagOptions((str(path),), out, device=device, overwrite=True, **given)
            planned = plan(options)
            output = Output(out)
            description = describe(options, planned.checkpoint)
            with output.claim(description, overwrite=True):
                run = make_run(ray, output, planned, options, description)
                begun = perf_counter()
                run.go(iter(planned.search), planned.remaining, planned.remaining_bytes, lambda progress: None)
                return perf_counter() - begun, dict(run.progress.seconds)

        def model_speed(checkpoint: Checkpoint, precision: str) -> float:
            shared = ray.share(checkpoint)
            for _ in range(ray.width):
                ray.submit(None, parts.model_speed, shared, precision, ray.gpus > 0, ALONE_S)
            total = 0.0
            while ray.in_flight:
                total += sum(speed for _, speed in ray.results(timeout_s=1.0))
            return total

        yield tag, model_speed


def _difference(out: Path, loop_scores: torch.Tensor) -> float:
    """Return the largest difference between the tags table, which contains all 527 labels, and the loop's scores."""
    table = pq.read_table(out / "tags", columns=["chunk", "mid", "score"]).to_pandas()
    wide = table.pivot(index="chunk", columns="mid", values="score")
    order = [label["mid"] for label in json.loads((out / "run.json").read_text())["labels"]]
    ours = torch.from_numpy(wide[order].to_numpy(dtype=np.float32))
    whole = min(len(ours), COMPARED_S // LOOP_BLOCK_S)
    return float((ours[:whole] - loop_scores[:whole]).abs().max())
