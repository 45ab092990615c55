"""Memory does not grow with the length of a recording, neither where it is tagged nor where it is published."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from audio import recording_of
from forked import Forked
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
from satpipe.sat.model.cutting import chunk_samples
from satpipe.sat.taggers.sat import SATTagger
from small_models import TWO_SECONDS

EXAMPLE = Path(__file__).parents[2] / "examples" / "recordings" / "speech_16k_mono.WAV"
SHORT_S, LONG_S = 600, 3 * 3600
SHORT_CHUNKS, LONG_CHUNKS = 18_000, 80_000  # 10 h and 43 h: 19 MB and 84 MB of scores in half precision
RUN = {"id": "this run", "identity": {"scores": True}}
TABLE = TableOptions("this run", "a model", chunk_samples(TWO_SECONDS, "gapless"), threshold=0.1, top_k=10, scores=True)


def tag(path: Path, out: Path) -> None:
    """Tag a recording as one span and publish it, as a worker does; print the peaks."""
    torch.set_num_threads(1)
    tagger = SATTagger(model_by_rule(TWO_SECONDS), "gapless", torch.device("cpu"))
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
    print(json.dumps({"chunks": outcomes[0].chunks, "tagged": tagged_mb, "published": peak_mb()}))


def publish(chunks: int, out: Path) -> None:
    """Publish a recording of so many chunks; print the peak."""
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
    print(json.dumps({"chunks": chunks, "published": peak_mb()}))


def row_of(chunks: int, duration_s: float) -> dict[str, Any]:
    known = {"duration_s": duration_s, "rate_hz": SAMPLE_RATE_HZ, "channels": 1, "chunks": chunks}
    return recording_row("long.wav", 0, 0, "ok", "", **known)


def in_new_process(function: Callable[..., None], *arguments: object) -> dict[str, float]:
    """Run one of the functions above in a process that does nothing else; return what it printed."""
    with TemporaryDirectory() as folder:  # 350 MB are not left to pytest, which keeps its folders
        process = Forked(Path(folder) / "printed", function, *arguments, Path(folder) / "out")
        assert process.ends() == 0, process.printed()
        result: dict[str, float] = json.loads(process.printed())
        return result


def measure_tagging(folder: Path, seconds: int) -> dict[str, float]:
    piece, _ = soundfile.read(EXAMPLE, dtype="int16")
    path = folder / "long.wav"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16") as file:
        while file.frames < seconds * SAMPLE_RATE_HZ:
            file.write(piece[: seconds * SAMPLE_RATE_HZ - file.frames])
    result = in_new_process(tag, path)
    path.unlink()
    return result


def assert_flat(short: dict[str, float], long: dict[str, float], most_mb: float) -> None:
    measured = f"peak resident memory in MB, short recording {short}, long recording {long}"
    assert long["chunks"] > 4 * short["chunks"] > 0, measured
    for stage in short.keys() - {"chunks"}:
        assert 50 < long[stage] < short[stage] + most_mb, measured


@pytest.mark.slow
def test_three_hours_take_no_more_memory_to_tag_than_ten_minutes(tmp_path: Path) -> None:
    # 3 h are 690 MB of samples. What is collected before it is written, up to 2048 and 16 384 chunks, is a part of the
    # difference: 10 minutes do not fill it.
    assert_flat(measure_tagging(tmp_path, SHORT_S), measure_tagging(tmp_path, LONG_S), most_mb=150)


@pytest.mark.slow
def test_a_long_recording_takes_no_more_memory_to_publish_than_a_shorter_one() -> None:
    assert_flat(in_new_process(publish, SHORT_CHUNKS), in_new_process(publish, LONG_CHUNKS), most_mb=40)
