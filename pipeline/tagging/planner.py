"""Plan tasks: each recording is cut into spans, and short recordings share a task."""

from collections import defaultdict, deque
from collections.abc import Iterable

from satpipe.pipeline.recordings.recording import Recording
from satpipe.pipeline.tables.staged import SpanKey
from satpipe.pipeline.tagging.spans import SPAN_S, Span, fair_span_s, group, spans_of
from satpipe.sat.model.config import ChunkConfig, Cut

SHORTEST_TASK_S = 30.0  # of short recordings


class Planner:
    """Plans the work on recordings.

    Attributes:
        tasks: Tasks that wait for a worker.
    """

    def __init__(self, config: ChunkConfig, cut: Cut, span_s: float | None, staged: Iterable[SpanKey]) -> None:
        """Plan for a model and chunking mode.

        Args:
            config: Configuration of the model.
            cut: The chunking mode.
            span_s: Maximum length of a span; None: one with which workers get equal parts.
            staged: Spans that are already tagged.
        """
        self.tasks: deque[list[Span]] = deque()
        self._config, self._cut, self._span_s = config, cut, span_s
        self._staged: defaultdict[tuple[str, int, int], set[tuple[int, int | None]]] = defaultdict(set)
        for name, size_bytes, modified_ns, start, stop in staged:
            self._staged[name, size_bytes, modified_ns].add((start, stop))
        self._short: list[Span] = []  # recordings that wait for others to share a task with

    def add(self, recording: Recording, workers: int, *, whole: bool) -> list[Span]:
        """Plan a recording, in one task if `whole`; return its spans, of which those not yet tagged become tasks.

        `workers` is the number of workers that share it.
        """
        spans = [Span(recording)]
        tagged = self._staged.get(spans[0].key[:3], set())
        span_s = self._span_s or fair_span_s(recording, self._config, self._cut, workers)
        if not whole and (0, None) not in tagged:
            spans = spans_of(recording, self._config, self._cut, span_s, tagged)
        remaining = [span for span in spans if span.key[3:] not in tagged]
        if whole or len(spans) > 1:
            self.tasks += group(remaining, self._config, self._cut, span_s)
        else:
            self._short += remaining
        return spans

    def group(self, fair_s: float, *, last: bool) -> None:
        """Make tasks of the short recordings.

        Args:
            fair_s: Length of a task with which all workers get work.
            last: True if no more recordings follow; otherwise the last task waits for more.
        """
        task_s = min(max(fair_s, SHORTEST_TASK_S), self._span_s or SPAN_S)
        tasks = list(group(self._short, self._config, self._cut, task_s))
        self._short = [] if last or not tasks else tasks.pop()
        self.tasks += tasks
