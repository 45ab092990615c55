"""Memory does not grow with the length of a recording, neither where it is tagged nor where it is published."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from audio import recording_of
from helpers import model_by_rule
from memory import peak_mb
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.schemas import recording_row, staged_table
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.pipeline.tagging.spans import Span
from satpipe.pipeline.tagging.tag_spans import STAGED_ROWS, tag_task
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ
from satpipe.sat.model.streaming import chunk_samples
from satpipe.sat.taggers.sat import SATTagger
from satpipe.sat.weights.registry import load_checkpoint
from test_tag_spans import SMALL

EXAMPLE = Path(__file__).parents[2] / "examples" / "recordings" / "speech_16k_mono.WAV"
SHORT_S, LONG_S = 600, 6 * 3600
SHORT_CHUNKS, LONG_CHUNKS = 40_000, 200_000  # 21 h and 107 h: 42 MB and 211 MB of scores in half precision
RUN = {"id": "this run", "identity": {"scores": True}}
TABLE = TableOptions("this run", chunk_samples(SMALL, "gapless"), threshold=0.1, top_k=10, scores=True)


def tag(path: Path, out: Path, model: str) -> dict[str, float]:
    """Tag a recording as one span and publish it, as a worker does; return the peaks."""
    torch.set_num_threads(1)
    tagger = SATTagger(
        load_checkpoint(model).model() if model else model_by_rule(SMALL), "gapless", torch.device("cpu")
    )
    recording = recording_of(path)
    output = Output(out)
    with output.claim(RUN):
        with output.staging.stage() as staged:
            outcomes, _ = tag_task([Span(recording)], tagger, staged.write)
            spans = staged.conclude(outcomes)
        tagged_mb = peak_mb()
        row = row_of(outcomes[0].chunks, recording.info.duration_s)
        output.batches.publish([Finished(row, spans)], TABLE, new_name())
        output.finish()
    return {"chunks": outcomes[0].chunks, "tagged": tagged_mb, "published": peak_mb()}


def publish(chunks: int, out: Path) -> dict[str, float]:
    """Publish a recording of so many chunks; return the peak."""
    scores = np.random.default_rng(0).random((STAGED_ROWS, CLASSES), np.float32) ** 20
    output = Output(out)
    with output.claim(RUN):
        with output.staging.stage() as staged:
            for start in range(0, chunks, STAGED_ROWS):
                count = min(STAGED_ROWS, chunks - start)
                staged.write(staged_table([0] * count, list(range(start, start + count)), scores[:count]))
            spans = staged.conclude([SpanOutcome(("long.wav", 0, 0, 0, None), chunks)])
        output.batches.publish([Finished(row_of(chunks, chunks * 2.0), spans)], TABLE, new_name())
        output.finish()
    return {"chunks": chunks, "published": peak_mb()}


def row_of(chunks: int, duration_s: float) -> dict[str, Any]:
    known = {"duration_s": duration_s, "rate_hz": SAMPLE_RATE_HZ, "channels": 1, "chunks": chunks}
    return recording_row("long.wav", 0, 0, "ok", "", **known)


def in_new_process(*arguments: object) -> dict[str, float]:
    """Run this file: peaks are those of a process that has done nothing else."""
    command = [sys.executable, "-W", "error", __file__, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure_tagging(seconds: int, model: str = "") -> dict[str, float]:
    piece, _ = soundfile.read(EXAMPLE, dtype="int16")
    with TemporaryDirectory() as folder:  # 700 MB are not left to pytest, which keeps its folders
        path = Path(folder) / "long.wav"
        with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16") as file:
            while file.frames < seconds * SAMPLE_RATE_HZ:
                file.write(piece[: seconds * SAMPLE_RATE_HZ - file.frames])
        return in_new_process("tag", path, Path(folder) / "out", model)


def measure_publishing(chunks: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        return in_new_process("publish", chunks, Path(folder) / "out")


def assert_flat(short: dict[str, float], long: dict[str, float], most_mb: float) -> None:
    measured = f"peak resident memory in MB, short recording {short}, long recording {long}"
    assert long["chunks"] > 4 * short["chunks"] > 0, measured
    for stage in short.keys() - {"chunks"}:
        assert 50 < long[stage] < short[stage] + most_mb, measured


@pytest.mark.slow
def test_six_hours_take_no_more_memory_to_tag_than_ten_minutes() -> None:
    # 6 h are 1.4 GB of samples. What is collected before it is written, up to 2048 and 16 384 chunks, is a part of the
    # difference: 10 minutes do not fill it.
    assert_flat(measure_tagging(SHORT_S), measure_tagging(LONG_S), most_mb=150)


@pytest.mark.slow
def test_a_long_recording_takes_no_more_memory_to_publish_than_a_shorter_one() -> None:
    assert_flat(measure_publishing(SHORT_CHUNKS), measure_publishing(LONG_CHUNKS), most_mb=80)


if __name__ == "__main__":
    what, first, second, *rest = sys.argv[1:]
    print(json.dumps(publish(int(first), Path(second)) if what == "publish" else tag(Path(first), Path(second), *rest)))
