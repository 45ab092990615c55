"""`satpipe benchmark evaluate`: time and memory of `satpipe evaluate`, compared with sed_eval's loops, as JSON.

The data are synthetic and have the size of AudioSet's strong labels. sed_eval evaluates one clip in `ONE_IN`, from
which its time for all clips is estimated.
"""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from satpipe.jobs.benchmark.common import SATPIPE, Say, machine
from satpipe.jobs.benchmark.strong_set import StrongSet, make
from satpipe.jobs.metrics.sed import load_sed_eval
from satpipe.jobs.metrics.sound_events import Events, detect
from satpipe.jobs.options.results import EXACT

THRESHOLD = 0.5
ONE_IN = 20


def benchmark(say: Say, made: StrongSet | None = None, one_in: int = ONE_IN) -> dict[str, Any]:
    """Evaluate a set both ways, and return time and memory.

    Args:
        say: Called with the name of each measurement before it starts.
        made: The set; by default one of AudioSet's size.
        one_in: sed_eval evaluates one in this number of clips.
    """
    if made is None:
        say("making a set of the size of AudioSet's strong labels")
        made = make()
    figures: dict[str, Any] = {
        "clips": len(made.segments), "events": len(made.truth), "classes": len(made.labels),
        "psds_thresholds": EXACT,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made.write_truth(folder / "strong.tsv")
        made.write_output(folder / "out")
        arguments = [str(folder / "out"), "--strong", str(folder / "strong.tsv"), "--classes", "416"]
        for title, more in (("figures", ["--bootstrap", "0"]), ("with_intervals", [])):
            say(f"satpipe evaluate, {title.replace('_', ' ')}")
            figures[title] = _run([*SATPIPE, "evaluate", *arguments, "-o", str(folder / "result"), *more])
    say(f"sed_eval, one clip in {one_in}")
    figures["sed_eval_s"] = one_in * _sed_eval_s(made, range(0, len(made.segments), one_in))
    figures["sed_eval_one_in"] = one_in
    names = ("satpipe", "sed_eval", "numpy")
    return {**figures, "machine": machine(), "versions": {name: version(name) for name in names}}


def _run(command: list[str]) -> dict[str, float]:
    begun = perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{command} ended with status {status}")
    return {"elapsed_s": perf_counter() - begun, "peak_bytes": usage.ru_maxrss * 1024}


def _sed_eval_s(made: StrongSet, clips: range) -> float:
    """Return the seconds that sed_eval needs for segment, onset and event metrics of some clips."""
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
