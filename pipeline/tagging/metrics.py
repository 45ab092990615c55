"""Metrics of a run on a cluster, which Ray exports to Prometheus on every node that has its dashboard agent."""

from collections import Counter
from collections.abc import Callable

from satpipe.pipeline.tagging.progress import Progress

HOURS_DONE = "satpipe_hours_done"
RECORDINGS = "satpipe_recordings"
FAILURES = "satpipe_failures"
HOURS_LEFT = "satpipe_hours_left"
RATE = "satpipe_hours_per_second"
LEFT = "satpipe_seconds_left"
COUNTERS = {
    HOURS_DONE: "Hours of audio tagged by this run.",
    RECORDINGS: "Recordings finished by this run.",
    FAILURES: "Recordings that this run did not tag from start to end, by reason: their status.",
}
GAUGES = {
    HOURS_LEFT: "Hours of audio that this run has yet to tag.",
    RATE: "Hours of audio tagged per second since the run began.",
    LEFT: "Seconds left at this rate.",
}


ALL = COUNTERS | GAUGES


def exported(name: str) -> str:
    """Return the name of a metric in Prometheus."""
    return f"ray_{name}_total" if name in COUNTERS else f"ray_{name}"


class Metrics:
    """Metrics of one run; `out` is the output folder, a label of each."""

    def __init__(self, out: str) -> None:
        """Register the metrics with the Ray that this process has joined."""
        from ray.util import metrics

        keys = {name: ("out", *(("reason",) if name == FAILURES else ())) for name in ALL}
        self._counters = {name: metrics.Counter(name, text, keys[name]) for name, text in COUNTERS.items()}
        self._gauges = {name: metrics.Gauge(name, text, keys[name]) for name, text in GAUGES.items()}
        self._out = out
        self._counted: Counter[tuple[str, str]] = Counter()

    def update(self, progress: Progress) -> None:
        """Take the progress of the run."""
        self._count(HOURS_DONE, progress.tagged_s / 3600)
        self._count(RECORDINGS, progress.recordings.total())
        for status, number in progress.recordings.items():
            if status != "ok":
                self._count(FAILURES, number, status)
        for name, value in (
            (HOURS_LEFT, max(0.0, progress.found_s - progress.done_s) / 3600),
            (RATE, progress.rate / 3600),
            (LEFT, progress.left_s or 0.0),
        ):
            self._gauges[name].set(value, {"out": self._out})

    def _count(self, name: str, total: float, reason: str = "") -> None:
        more = total - self._counted[name, reason]
        if more > 0:
            labels = {"out": self._out, **({"reason": reason} if reason else {})}
            self._counters[name].inc(more, labels)
            self._counted[name, reason] = total  # type: ignore[assignment]


def reported(report: Callable[[Progress], None], out: str) -> Callable[[Progress], None]:
    """Return a function that calls `report` with the progress, and updates the metrics of a run."""
    metrics = Metrics(out)

    def both(progress: Progress) -> None:
        report(progress)
        metrics.update(progress)

    return both
