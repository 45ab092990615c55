"""`satpipe benchmark`: how fast tagging is on this machine, beside the plain loop, as JSON.

One run measures everything, so that the ratios hold however fast the machine is at the time.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
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
from satpipe.jobs.options.measure import BenchmarkOptions, Device
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.job import describe, make_run
from satpipe.jobs.tag.plan import plan
from satpipe.pipeline import ray_engine
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import PRECISIONS
from satpipe.sat.model.streaming import CUTS, StreamingTagger
from satpipe.sat.weights.checkpoint import Checkpoint, load, save
from satpipe.sat.weights.hub import BUNDLED
from satpipe.sat.weights.registry import load_checkpoint

LOOP_PIECE_S = 2  # what the published inference script reads at a time
COMPARED_S = 300
FLAC_S = 900
SHORT_S = 10
SIZES_S = {"SAT_S_2s": 300, "SAT_B_2s": 120}  # the larger models, and what is tagged to measure them
ON_PROCESSORS = ("fp32", "bf16")
YEAR_H = 8766


def benchmark(
    recordings: Path, hours: float, say: Callable[[str], None], device: Device = BenchmarkOptions.device
) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        recordings: Folder of recordings whose sound is repeated to the length wanted.
        hours: Length of the recording to tag.
        say: Told what is being done.
        device: `cpu`, or `cuda` for `satpipe tag` on GPUs; the loop runs on the processors all the same.

    Raises:
        ConfigError: There are no recordings in the folder, or there is no GPU.
    """
    checkpoint = load_checkpoint(BUNDLED)
    duration_s = int(hours * 3600)
    with TemporaryDirectory() as name:
        folder = Path(name)
        say(f"making {hours:g} h of 16 kHz WAV and {FLAC_S} s of 48 kHz stereo FLAC")
        sound = _sound(recordings)
        wav, flac, part, short = (folder / name for name in ("hour.wav", "stereo.flac", "part.wav", "short.wav"))
        _write(short, sound, SHORT_S, SAMPLE_RATE_HZ, 1)
        _write(wav, sound, duration_s, SAMPLE_RATE_HZ, 1)
        _write(part, sound, COMPARED_S, SAMPLE_RATE_HZ, 1)
        _write(flac, sound, FLAC_S, 48_000, 2)
        say("start-up")
        start_up = {"help_s": _command("--help"), "one_file_s": _command("tag", short, "-o", folder / "one")}
        say("each part alone, on one processor")
        config = checkpoint.config
        alone = parts.parts(wav, flac, folder / "written", config)
        say("the plain loop: one chunk at a time, all processors")
        loop_s, loop_scores = _loop(checkpoint, wav, duration_s)
        begun = perf_counter()
        with _workers(device) as tag:
            start_s = perf_counter() - begun
            begun = perf_counter()
            tag(part, folder / "first", span_s=COMPARED_S / 20)
            first_s = perf_counter() - begun
            runs = {}
            for cut, precision in product(CUTS[::-1], PRECISIONS if device == "cuda" else ON_PROCESSORS):
                say(f"satpipe tag, {cut} cut, {precision}")
                tag(part, folder / "warm", cut=cut, precision=precision, span_s=COMPARED_S / 20)
                out = folder / f"{cut}-{precision}"
                elapsed_s, seconds = tag(wav, out, cut=cut, precision=precision)
                runs[f"{cut} {precision}"] = {"x_realtime": duration_s / elapsed_s, "worker_s": seconds}
            for precision in ON_PROCESSORS:
                say(f"satpipe tag, 48 kHz stereo FLAC, {precision}")
                tag(part, folder / "warm", precision=precision, span_s=COMPARED_S / 20)
                elapsed_s, seconds = tag(flac, folder / "flac", precision=precision, span_s=_share_s(FLAC_S))
                name = f"gapless {precision}, 48 kHz stereo FLAC"
                runs[name] = {"x_realtime": FLAC_S / elapsed_s, "worker_s": seconds}
            larger = {}
            for name, length_s in SIZES_S.items():
                say(f"{name}, random weights")
                larger[name] = _size(name, length_s, sound, folder, tag)
            say("comparing scores")
            tag(part, folder / "all", cut="script", threshold=0.0, top_k=CLASSES, scores=False)
        difference = _difference(folder / "all", loop_scores)
        sizes = {table: _bytes(folder / "gapless-fp32" / table) for table in ("tags", "scores")}
    say("the models alone, on one processor")
    models = {
        f"{name} {precision}": parts.model_parts(SAT(get_config(name)).eval(), precision)
        for name, precision in product((config.name, *SIZES_S), ON_PROCESSORS)
    }
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
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
    }


def machine() -> dict[str, Any]:
    """What figures were measured on."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"processor": _processor(), "processors": os.cpu_count(), "system": platform.platform(), **gpu}


def write(figures: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")


def _sound(recordings: Path) -> Samples:
    """All recordings of a folder, one after the other, 16 kHz."""
    blocks = []
    for source in Search((str(recordings),)):
        blocks += list(Reader(source.path, probe(source.path, source.size_bytes)).blocks())
    if not blocks:
        raise ConfigError(f"no recordings in {recordings}")
    return np.concatenate(blocks)


def _write(path: Path, sound: Samples, duration_s: int, rate_hz: int, channels: int) -> None:
    once = soxr.resample(sound, SAMPLE_RATE_HZ, rate_hz)
    missing = duration_s * rate_hz
    with soundfile.SoundFile(path, "w", rate_hz, channels, "PCM_16") as file:
        while missing:
            piece = once[:missing]
            other = np.roll(piece, rate_hz // 100)  # the second channel is not the first
            file.write(np.stack([piece, other][:channels], axis=1))
            missing -= len(piece)


def _loop(checkpoint: Checkpoint, path: Path, duration_s: int) -> tuple[float, torch.Tensor]:
    """Tag as the published inference script does; return the seconds it took and the scores [C, 527]."""
    torch.set_num_threads(os.cpu_count() or 1)
    tagger = StreamingTagger(checkpoint.model(), "script")
    tagger.push(torch.zeros(LOOP_PIECE_S * SAMPLE_RATE_HZ))
    tagger = StreamingTagger(checkpoint.model(), "script")
    begun = perf_counter()
    pieces = soundfile.blocks(path, LOOP_PIECE_S * SAMPLE_RATE_HZ, dtype="float32")
    scores = [tagger.push(torch.from_numpy(piece)) for piece in pieces]
    return perf_counter() - begun, torch.cat(scores)


def _size(
    name: str, length_s: int, sound: Samples, folder: Path, tag: Callable[..., tuple[float, dict[str, float]]]
) -> dict[str, float]:
    """Measure another model, with random weights: the loop and `satpipe tag` in each precision, x realtime."""
    weights, wav = folder / f"{name}.safetensors", folder / f"{name}.wav"
    save(SAT(get_config(name)), weights)
    _write(wav, sound, length_s, SAMPLE_RATE_HZ, 1)
    figures = {"loop": length_s / _loop(load(weights), wav, length_s)[0]}
    span_s = _share_s(length_s)
    for precision in ON_PROCESSORS:
        for out in ("warm", f"{name}-{precision}"):  # the first loads the model
            elapsed_s, _ = tag(wav, folder / out, model=str(weights), precision=precision, span_s=span_s)
        figures[precision] = length_s / elapsed_s
    return figures


def _share_s(length_s: float) -> float:
    """How long a span is of which every processor gets one."""
    return max(length_s / (os.cpu_count() or 1), 10.0)


def _command(*args: object) -> float:
    """Run satpipe as a person does; return the seconds it took."""
    begun = perf_counter()
    command = [sys.executable, "-c", "from satpipe.jobs.commands.main import main; main()", *map(str, args)]
    subprocess.run(command, check=True, capture_output=True)
    return perf_counter() - begun


@contextmanager
def _workers(device: Device) -> Iterator[Callable[..., tuple[float, dict[str, float]]]]:
    """Start Ray once; give a function that tags a file and returns the seconds it took, and its workers' by stage."""
    with ray_engine.start(None, None, device) as ray:

        def tag(path: Path, out: Path, **given: Any) -> tuple[float, dict[str, float]]:
            options = TagOptions((str(path),), out, device=device, overwrite=True, **given)
            planned = plan(options)
            output = Output(out)
            description = describe(options, planned.checkpoint)
            with output.claim(description, overwrite=True):
                run = make_run(ray, output, planned.checkpoint, options, description["id"])
                begun = perf_counter()
                run.go(iter(planned.search), planned.todo, planned.todo_bytes, lambda progress: None)
                return perf_counter() - begun, dict(run.progress.seconds)

        yield tag


def _difference(out: Path, loop_scores: torch.Tensor) -> float:
    """Largest difference between the tags table, which holds all 527 labels, and the loop's scores."""
    table = pq.read_table(out / "tags", columns=["chunk", "mid", "score"]).to_pandas()
    wide = table.pivot(index="chunk", columns="mid", values="score")
    order = [label["mid"] for label in json.loads((out / "run.json").read_text())["labels"]]
    ours = torch.from_numpy(wide[order].to_numpy(dtype=np.float32))
    whole = min(len(ours), COMPARED_S // LOOP_PIECE_S)
    return float((ours[:whole] - loop_scores[:whole]).abs().max())


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
