"""Time `satpipe evaluate` on a set of the size of AudioSet's strong labels, beside sed_eval's own loops.

`python tests/benchmark_evaluate.py FILE` writes the figures as JSON; `make bench-evaluate` puts them into the README.
sed_eval takes one clip in `ONE_IN`, and its time for all of them is in proportion; ours is one run of the command.
"""

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import audioset_size
import numpy as np
from satpipe.jobs.benchmark.tag import machine
from satpipe.jobs.metrics.sed import load_sed_eval
from satpipe.jobs.metrics.sound_events import Events, detect

COMMAND = Path(sys.executable).with_name("satpipe")
THRESHOLD = 0.5
ONE_IN = 20


def measured(made: audioset_size.StrongSet, folder: Path, one_in: int = ONE_IN) -> dict[str, Any]:
    """Write the set, evaluate it both ways, and return what that took."""
    made.write_truth(folder / "strong.tsv")
    made.write_output(folder / "out")
    figures: dict[str, Any] = {
        "clips": len(made.segments), "events": len(made.truth), "classes": len(made.labels), "psds_thresholds": 50,
    }  # fmt: skip
    for name, more in (("figures", ["--bootstrap", "0"]), ("with_intervals", [])):
        arguments = ["evaluate", str(folder / "out"), "--strong", str(folder / "strong.tsv"), "--classes", "416"]
        figures[name] = _run([str(COMMAND), *arguments, "-o", str(folder / "card"), *more])
    figures["sed_eval_s"] = one_in * _sed_eval_s(made, range(0, len(made.segments), one_in))
    figures["sed_eval_one_in"] = one_in
    names = ("satpipe", "sed_eval", "numpy")
    return {**figures, "machine": machine(), "versions": {name: version(name) for name in names}}


def _run(command: list[str]) -> dict[str, float]:
    begun = perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return {"elapsed_s": perf_counter() - begun, "peak_bytes": usage.ru_maxrss * 1024}


def _sed_eval_s(made: audioset_size.StrongSet, clips: range) -> float:
    """Time sed_eval takes for segment, onset and event figures of some clips."""
    mids = [label.mid for label in made.labels]
    sound_event = load_sed_eval().sound_event
    evaluators = (
        sound_event.SegmentBasedMetrics(mids, time_resolution=1.92),
        sound_event.EventBasedMetrics(mids, t_collar=0.2, evaluate_offset=False),
        sound_event.EventBasedMetrics(mids, t_collar=0.2),
    )
    found = detect(made.clip, made.start_s, made.end_s, made.scores(), THRESHOLD)
    lists = [(_list(made.truth, clip, mids), _list(found, clip, mids)) for clip in clips]
    begun = perf_counter()
    for true, estimated in lists:
        for evaluator in evaluators:
            evaluator.evaluate(reference_event_list=true, estimated_event_list=estimated)
    for evaluator in evaluators:
        evaluator.results()
    return perf_counter() - begun


def _list(events: Events, clip: int, mids: list[str]) -> list[dict[str, Any]]:
    some = events.take(np.flatnonzero(events.clip == clip))
    rows = zip(some.label.tolist(), some.onset_s.tolist(), some.offset_s.tolist(), strict=True)
    return [{"event_label": mids[label], "onset": onset_s, "offset": offset_s} for label, onset_s, offset_s in rows]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        text = json.dumps(measured(audioset_size.make(), Path(name)), indent=1)
    Path(sys.argv[1]).write_text(text + "\n")
