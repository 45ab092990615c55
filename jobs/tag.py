"""`satpipe tag`: recordings in, tables out."""

import logging
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import engine
from pipeline.cut import SPAN_S
from pipeline.find import Search, Source
from pipeline.location import locate
from pipeline.output import Output, TableOptions
from pipeline.run import Progress, TagRun, WorkerOptions
from sat.checkpoint import Checkpoint
from sat.config import SAMPLE_RATE_HZ, get_config
from sat.errors import ConfigError
from sat.hub import BUNDLED, resolve
from sat.labels import weak_labels
from sat.stream import Cut, chunk_samples

EXAMPLES = 5  # recordings with a problem that are named in the summary
VERSIONS_OF = ("satpipe", "torch", "ray", "pyarrow", "numpy", "soundfile", "soxr")


@dataclass(frozen=True)
class TagOptions:
    """Options of `satpipe tag`, as on its command line."""

    inputs: tuple[str, ...]
    out: str | Path
    model: str = BUNDLED
    arch: str | None = None
    cut: Cut = "gapless"
    memory: Literal["on", "off"] = "on"
    delay_s: float | None = None
    threshold: float = 0.1
    top_k: int = 10
    scores: bool = True
    channels: str = "mix"
    workers: int | None = None
    address: str | None = None
    device: str = "auto"
    precision: str = "fp32"
    span_s: float = SPAN_S
    overwrite: bool = False
    prune: bool = False
    retry_failed: bool = False


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        checkpoint: The model, with its configuration as the options want it.
        search: Where recordings are looked for.
        files: Files found.
        todo: Of these, files that are not in the tables yet.
        todo_bytes: Their size.
        stale: Recordings in the tables that are tagged again: their files have changed, or they failed before.
        gone: Recordings in the tables whose files are not there any more.
    """

    checkpoint: Checkpoint
    search: Search
    files: int
    todo: int
    todo_bytes: int
    stale: frozenset[str]
    gone: frozenset[str]


@dataclass(frozen=True)
class Summary:
    """What the tables hold after a run.

    Attributes:
        recordings: Recordings in the tables.
        statuses: How many of them have each status.
        examples: Some that are not ok, with the reason.
        duration_s: Their length together.
        tagged_s: Length tagged by this run.
        elapsed_s: Time it took, start-up of Ray left out.
        seconds: Workers' time by stage.
        problems: Folders that could not be read.
    """

    recordings: int
    statuses: dict[str, int]
    examples: dict[str, str]
    duration_s: float
    tagged_s: float
    elapsed_s: float
    seconds: dict[str, float]
    problems: list[str]

    @property
    def complete(self) -> bool:
        """Whether every recording was tagged from start to end."""
        return not self.problems and set(self.statuses) <= {"ok"}


def plan(options: TagOptions) -> Plan:
    """Look at model, input and output; write nothing.

    Raises:
        ConfigError: No such model, no recordings, or options that contradict one another.
        CheckpointError: The model's file is not what it should be.
        OutputError: The tables in the output folder are not readable.
    """
    if not (options.channels in ("mix", "split") or (options.channels.isdecimal() and int(options.channels) > 0)):
        raise ConfigError(f"--channels is '{options.channels}': it takes mix, split or a number from 1")
    checkpoint = resolve(options.model, options.arch).configured(options.memory, options.delay_s)
    search = Search(options.inputs)
    done = {} if options.overwrite else _done(Output(options.out), options)
    files = todo = todo_bytes = 0
    stale: set[str] = set()
    seen = set()
    for source in search:
        files += 1
        known = done.get(source.recording)
        if known:
            seen.add(source.recording)
        if not known or not known.holds(source):
            todo += 1
            todo_bytes += source.size_bytes
            stale.update(known.stale(source) if known else ())
    if not files:
        problems = "".join(f"\n{problem}" for problem in search.problems)
        raise ConfigError(f"no recordings in {', '.join(options.inputs)}{problems}")
    gone = frozenset(name for file in done.keys() - seen for name in done[file].rows)
    return Plan(checkpoint, search, files, todo, todo_bytes, frozenset(stale), gone)


def tag(options: TagOptions, plan: Plan, report: Callable[[Progress], None]) -> Summary:
    """Tag what the plan leaves to do.

    Args:
        options: What is wanted.
        plan: What `plan(options)` returned.
        report: Called now and then with how far the run is.

    Raises:
        OutputError: The output cannot be written, or holds other tables.
        ConfigError: Ray cannot be reached, or there is no such device.
    """
    output = Output(options.out)
    progress, elapsed_s = Progress(), 0.0
    description = describe(options, plan.checkpoint)
    with output.claim(description, overwrite=options.overwrite), _logged(output, description):
        output.remove(set(plan.stale | (plan.gone if options.prune else frozenset())))
        if plan.todo:
            with engine.start(options.address, options.workers, options.device) as ray:
                run = make_run(ray, output, plan.checkpoint, options, description["id"])
                begun = perf_counter()
                run.go(_todo(plan.search, output, options), plan.todo, plan.todo_bytes, report)
                progress, elapsed_s = run.progress, perf_counter() - begun
        recordings = output.recordings(["status", "reason", "recording", "duration_s"])
        finished = {"finished": _now(), "elapsed_s": round(elapsed_s, 3), "tagged_s": progress.tagged_s}
        output.note(description | finished)
    counts = recordings["status"].value_counts().to_pylist()
    bad = recordings.filter(pc.not_equal(recordings["status"], "ok")).slice(length=EXAMPLES).to_pylist()
    return Summary(
        recordings=len(recordings),
        statuses={count["values"]: count["counts"] for count in counts},
        examples={row["recording"]: f"{row['status']}: {row['reason']}" for row in bad},
        duration_s=pc.sum(recordings["duration_s"]).as_py() or 0.0,
        tagged_s=progress.tagged_s,
        elapsed_s=elapsed_s,
        seconds=dict(progress.seconds),
        problems=plan.search.problems,
    )


def make_run(ray: engine.Engine, output: Output, checkpoint: Checkpoint, options: TagOptions, run_id: str) -> TagRun:
    """Make a run ready on a Ray that has started."""
    config = checkpoint.config
    cuda = ray.slots.gpus > 0
    worker = WorkerOptions(str(output.folder), checkpoint.sha256, config, options.cut, options.precision, cuda)
    size = chunk_samples(config, options.cut)
    table = TableOptions(run_id, size, options.threshold, options.top_k, options.scores)
    return TagRun(ray, output, checkpoint, worker=worker, table=table, channels=options.channels, span_s=options.span_s)


def describe(options: TagOptions, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what goes into `run.json`: what made the tables."""
    config = checkpoint.config
    size = chunk_samples(config, options.cut)
    return {
        "id": uuid4().hex,  # of this run
        "identity": {  # tables made with another one are never mixed with these
            "model_sha256": checkpoint.sha256,
            "arch": config.name,
            "cut": options.cut,
            "memory": "on" if config.streaming else "off",  # off as well where there is none
            "delay_s": float(config.script_chunk_s),
            "precision": options.precision,
            "channels": options.channels,
            "threshold": options.threshold,
            "top_k": options.top_k,
            "scores": options.scores,
        },
        "model": {
            "name": options.model,
            "source": checkpoint.source,
            "sha256": checkpoint.sha256,
            **asdict(config),
            "chunk_samples": size,  # from the start of a chunk to the start of the next
            "streaming": get_config(config.name).streaming,  # whether it has a memory, on or off
            "metadata": checkpoint.metadata,
        },
        "chunk_s": size / SAMPLE_RATE_HZ,
        "inputs": [str(locate(given)) for given in options.inputs],
        "started": _now(),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS_OF}},
        "labels": [{"index": label.index, "mid": label.mid, "name": label.name} for label in weak_labels()],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _logged(output: Output, description: dict[str, Any]) -> Iterator[None]:
    """Keep a log of the run in its output folder."""
    name = f"{description['started'].replace(':', '')}-{description['id'][:8]}.log"
    log = logging.getLogger("satpipe")
    log.setLevel(logging.INFO)
    log.propagate = False
    with output.log(name) as path:
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        try:
            log.info("started: %s", " ".join(description["command"]))
            yield
            log.info("finished")
        except BaseException as error:
            log.error("ended by %s: %s", type(error).__name__, error)
            raise
        finally:
            log.removeHandler(handler)
            handler.close()


@dataclass
class _Done:
    """Rows that the tables hold of one file: one, or one for each channel."""

    rows: dict[str, tuple[int, int] | None]  # recording -> size, time stamp; None: to be tagged again in any case
    channels: int

    def holds(self, source: Source) -> bool:
        """Whether the file as it is now is in the tables, whole."""
        return len(self.rows) >= self.channels and not self.stale(source)

    def stale(self, source: Source) -> list[str]:
        """Recordings whose rows were made of another state of the file."""
        return [name for name, state in self.rows.items() if state != (source.size_bytes, source.modified_ns)]


def _done(output: Output, options: TagOptions) -> dict[str, _Done]:
    """What the tables hold, by file."""
    table = output.recordings(["recording", "size_bytes", "modified", "channels", "status"])
    columns = [table[0], table[1], pc.cast(table[2], pa.int64()), table[3], table[4]]
    done: dict[str, _Done] = {}
    for name, size_bytes, modified_ns, count, status in zip(*(column.to_pylist() for column in columns), strict=True):
        file, mark, _ = name.rpartition("#ch") if options.channels == "split" else ("", "", "")
        known = done.setdefault(file if mark else name, _Done({}, (count or 1) if mark else 1))
        again = options.retry_failed and status != "ok"
        known.rows[name] = None if again else (size_bytes, modified_ns)
    return done


def _todo(search: Search, output: Output, options: TagOptions) -> Iterator[Source]:
    """Yield the sources that are not in the tables."""
    done = _done(output, options)
    return (s for s in search if not ((known := done.get(s.recording)) and known.holds(s)))
