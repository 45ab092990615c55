"""`satpipe benchmark`: how fast tagging is on this machine, beside the plain loop, as JSON.

One run measures everything, so that the ratios hold however fast the machine is at the time.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
import soxr
import torch

from jobs.tag import TagOptions, describe, make_run, plan
from pipeline import engine
from pipeline.decode import Reader, Samples, probe
from pipeline.find import Search
from pipeline.output import Output
from sat.checkpoint import Checkpoint
from sat.config import CLASSES, SAMPLE_RATE_HZ
from sat.errors import ConfigError
from sat.hub import BUNDLED, resolve
from sat.stream import StreamingTagger

LOOP_PIECE_S = 2  # what the published inference script reads at a time
COMPARED_S = 300
FLAC_S = 900
YEAR_H = 8766


def benchmark(recordings: Path, hours: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        recordings: Folder of recordings whose sound is repeated to the length wanted.
        hours: Length of the recording to tag.
        say: Told what is being done.
    """
    checkpoint = resolve(BUNDLED)
    duration_s = int(hours * 3600)
    with TemporaryDirectory() as name:
        folder = Path(name)
        say(f"making {hours:g} h of 16 kHz WAV and {FLAC_S} s of 48 kHz stereo FLAC")
        sound = _sound(recordings)
        wav, flac, part = folder / "hour.wav", folder / "stereo.flac", folder / "part.wav"
        _write(wav, sound, duration_s, SAMPLE_RATE_HZ, 1)
        _write(part, sound, COMPARED_S, SAMPLE_RATE_HZ, 1)
        _write(flac, sound, FLAC_S, 48_000, 2)
        say("the plain loop: one chunk at a time, all processors")
        loop_s, loop_scores = _loop(checkpoint, wav, duration_s)
        begun = perf_counter()
        with _workers() as tag:
            start_s = perf_counter() - begun
            begun = perf_counter()
            tag(part, folder / "first", span_s=COMPARED_S / 20)
            first_s = perf_counter() - begun
            runs = {}
            for cut, precision in (("script", "fp32"), ("script", "bf16"), ("gapless", "fp32"), ("gapless", "bf16")):
                say(f"satpipe tag, {cut} cut, {precision}")
                tag(part, folder / "warm", cut=cut, precision=precision, span_s=COMPARED_S / 20)
                out = folder / f"{cut}-{precision}"
                elapsed_s, seconds = tag(wav, out, cut=cut, precision=precision)
                runs[f"{cut} {precision}"] = {"x_realtime": duration_s / elapsed_s, "worker_s": seconds}
            say("satpipe tag, 48 kHz stereo FLAC")
            elapsed_s, seconds = tag(flac, folder / "flac")
            runs["gapless fp32, 48 kHz stereo FLAC"] = {"x_realtime": FLAC_S / elapsed_s, "worker_s": seconds}
            say("comparing scores")
            tag(part, folder / "all", cut="script", threshold=0.0, top_k=CLASSES, scores=False)
        difference = _difference(folder / "all", loop_scores)
        sizes = {table: _bytes(folder / "gapless-fp32" / table) for table in ("tags", "scores")}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": describe(TagOptions((), folder), checkpoint)["versions"],
        "model": checkpoint.config.name,
        "hours": hours,
        "loop_x_realtime": duration_s / loop_s,
        "ray_start_s": start_s,
        "first_run_s": first_s,
        "runs": runs,
        "largest_score_difference": difference,
        "year_bytes": {table: size / hours * YEAR_H for table, size in sizes.items()},
    }


def machine() -> dict[str, Any]:
    """What figures were measured on."""
    return {"processor": _processor(), "processors": os.cpu_count(), "system": platform.platform()}


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


@contextmanager
def _workers() -> Iterator[Callable[..., tuple[float, dict[str, float]]]]:
    """Start Ray once; give a function that tags a file and returns the seconds it took, and its workers' by stage."""
    with engine.start(None, None, "cpu") as ray:

        def tag(path: Path, out: Path, **given: Any) -> tuple[float, dict[str, float]]:
            options = TagOptions((str(path),), out, overwrite=True, **given)
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
