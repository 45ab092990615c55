"""`satpipe tag`: recordings in, tables out."""

import logging
import platform
import re
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
import torch

from jobs.clock import clock_notes, joined, make_clock
from jobs.held import Held
from pipeline import engine
from pipeline.clock import Clock
from pipeline.cut import SPAN_S
from pipeline.find import Search
from pipeline.join import GAP_S, Joints
from pipeline.location import locate
from pipeline.output import Output, TableOptions
from pipeline.run import Progress, TagRun, WorkerOptions
from pipeline.times import TimesKnown, set_times
from sat.checkpoint import Checkpoint
from sat.config import SAMPLE_RATE_HZ
from sat.errors import ConfigError
from sat.hub import BUNDLED
from sat.labels import weak_labels
from sat.measure import largest_batch
from sat.precision import processor_has_bf16
from sat.stream import Cut, chunk_samples
from sat.tagger import Peer
from sat.taggers import adapted, resolve

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?B?)", re.IGNORECASE)
_UNIT_BYTES = {"": 1e6, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9}
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
    max_batch_memory: str | None = None
    overwrite: bool = False
    prune: bool = False
    retry_failed: bool = False
    time_zone: str | None = None
    time_pattern: str | None = None
    times: str | Path | None = None
    clock_marks: str | Path | None = None
    join: bool = False
    join_gap_s: float = GAP_S


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
        clock: Tells when files started.
        notes: What the person should know before it starts, one line each.
        batch_chunks: Chunks to run at once; None: as many as are quickest.
    """

    checkpoint: Checkpoint | Peer
    search: Search
    files: int
    todo: int
    todo_bytes: int
    stale: frozenset[str]
    gone: frozenset[str]
    clock: Clock
    notes: tuple[str, ...] = ()
    batch_chunks: int | None = None


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
        times: Of how many it is known when they started.
        zone: Time zone that was taken for the local one; None: UTC, since none was named.
        files: Files that are joined to deployments, and how many of these there are; None without `join`.
        joints: What this run did not join, and why.
    """

    recordings: int
    statuses: dict[str, int]
    examples: dict[str, str]
    duration_s: float
    tagged_s: float
    elapsed_s: float
    seconds: dict[str, float]
    problems: list[str]
    times: TimesKnown
    zone: str | None
    files: tuple[int, int] | None
    joints: Joints

    @property
    def complete(self) -> bool:
        """Whether every recording was tagged from start to end."""
        return not self.problems and set(self.statuses) <= {"ok"}


def plan(options: TagOptions) -> Plan:
    """Look at model, input and output; write nothing.

    Raises:
        ConfigError: No such model, no recordings, no such time zone, times that cannot be read, or options that
            contradict one another.
        CheckpointError: The model's file is not what it should be.
        OutputError: The tables in the output folder are not readable.
    """
    if not (options.channels in ("mix", "split") or (options.channels.isdecimal() and int(options.channels) > 0)):
        raise ConfigError(f"--channels is '{options.channels}': it takes mix, split or a number from 1")
    if options.precision == "fp16" and options.device != "cuda":
        raise ConfigError("--precision fp16 is for GPUs: it takes --device cuda; on a processor bf16 is the fast one")
    checkpoint = adapted(resolve(options.model, options.arch), options.delay_s, memory=options.memory == "on")
    if isinstance(checkpoint, Peer) and options.cut == "script":
        raise ConfigError(f"{checkpoint.config.name} reads waveforms, all of every piece; leave --cut out")
    clock = make_clock(options)
    search = Search(options.inputs)
    sources = list(search)
    if not sources:
        problems = "".join(f"\n{problem}" for problem in search.problems)
        raise ConfigError(f"no recordings in {', '.join(options.inputs)}{problems}")
    held = Held(None if options.overwrite else Output(options.out), options)
    todo = held.todo(sources, clock.names)
    return Plan(
        checkpoint=checkpoint,
        search=search,
        files=len(sources),
        todo=len(todo),
        todo_bytes=sum(source.size_bytes for source in todo),
        stale=held.stale(todo),
        gone=held.gone(sources),
        clock=clock,
        notes=(*clock_notes(clock, options, [source.recording for source in sources]), *_notes(options)),
        batch_chunks=_batch_chunks(checkpoint, options),
    )


def _notes(options: TagOptions) -> Iterator[str]:
    on_cpu = options.device == "cpu" or not torch.cuda.is_available()
    if options.precision == "bf16" and options.address is None and on_cpu and not processor_has_bf16():
        yield "this processor does not multiply in bf16 (AVX512_BF16 or AMX): --precision fp32 is faster here"


def _batch_chunks(checkpoint: Checkpoint | Peer, options: TagOptions) -> int | None:
    """How many chunks may run at once, found by running them here, with the memory given."""
    if options.max_batch_memory is None:
        return None
    given = _SIZE.fullmatch(options.max_batch_memory.strip())
    if given is None:
        raise ConfigError(f"--max-batch-memory is '{options.max_batch_memory}': it takes a size such as 256MB or 1.5GB")
    limit_bytes = int(float(given[1]) * _UNIT_BYTES[given[2].upper()])
    return largest_batch(checkpoint.tagger(options.cut, precision=options.precision), limit_bytes)


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
        joints = Joints()
        if plan.todo:
            with engine.start(options.address, options.workers, options.device) as ray:
                begun = perf_counter()
                held = Held(output, options)
                sources = held.todo(list(plan.search), plan.clock.names)
                if options.join:
                    sources, joints = joined(ray, sources, plan.clock, options.join_gap_s)
                    sources, stale = held.left(sources)
                    output.remove(stale)
                run = make_run(ray, output, plan.checkpoint, options, description["id"], plan.batch_chunks)
                run.go(iter(sources), len(sources), sum(source.size_bytes for source in sources), report)
                progress, elapsed_s = run.progress, perf_counter() - begun
        times = set_times(output, plan.clock, split=options.channels == "split", gap_s=options.join_gap_s)
        recordings = output.recordings(["status", "reason", "recording", "duration_s", "files"])
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
        times=times,
        zone=options.time_zone,
        files=_joined(recordings["files"]) if options.join else None,
        joints=joints,
    )


def _joined(files: pa.ChunkedArray) -> tuple[int, int]:
    """How many files deployments have, and how many of these there are."""
    return pc.sum(pc.list_value_length(files)).as_py() or 0, len(files) - files.null_count


def make_run(
    ray: engine.Engine,
    output: Output,
    checkpoint: Checkpoint | Peer,
    options: TagOptions,
    run_id: str,
    batch_chunks: int | None = None,
) -> TagRun:
    """Make a run ready on a Ray that has started."""
    config = checkpoint.config
    cuda = ray.slots.gpus > 0
    worker = WorkerOptions(
        str(output.folder), checkpoint.sha256, config, options.cut, options.precision, cuda, batch_chunks
    )
    size = chunk_samples(config, options.cut)
    table = TableOptions(run_id, size, options.threshold, options.top_k, options.scores)
    return TagRun(ray, output, checkpoint, worker=worker, table=table, channels=options.channels, span_s=options.span_s)


def describe(options: TagOptions, checkpoint: Checkpoint | Peer) -> dict[str, Any]:
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
            "join_gap_s": options.join_gap_s if options.join else None,
        },
        "model": {
            "name": options.model,
            "source": checkpoint.source,
            "sha256": checkpoint.sha256,
            **asdict(config),
            "chunk_samples": size,  # from the start of a chunk to the start of the next
            "streaming": checkpoint.remembers,  # whether it has a memory, on or off
            "metadata": checkpoint.metadata,
        },
        "chunk_s": size / SAMPLE_RATE_HZ,
        "clock": {  # times are of the last run; they are not part of the identity
            "time_zone": options.time_zone,
            "time_pattern": options.time_pattern,
            "times": options.times and str(options.times),
            "clock_marks": options.clock_marks and str(options.clock_marks),
        },
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
