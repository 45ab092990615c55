"""`satpipe tag`: run a plan and describe the result."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.already_tagged import AlreadyTagged
from satpipe.jobs.tag.plan import Plan
from satpipe.jobs.tag.plan import plan as make_plan
from satpipe.jobs.tag.precision import recorded, settled
from satpipe.jobs.tag.run_log import logged
from satpipe.jobs.tag.status import EXAMPLES, Warnings, counts, problems, warnings
from satpipe.jobs.tag.time_options import LeftOut, joined, within
from satpipe.jobs.this_run import now, this_run
from satpipe.pipeline import ray_engine
from satpipe.pipeline.option import lists
from satpipe.pipeline.recordings.deployments import NotJoined
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.batches import TableOptions
from satpipe.pipeline.tables.files import own_names
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.own_tables import own_table, put
from satpipe.pipeline.tables.schemas import model_name
from satpipe.pipeline.tables.start_times import TimesKnown, set_times
from satpipe.pipeline.tagging.events import event
from satpipe.pipeline.tagging.heartbeat import Heartbeat
from satpipe.pipeline.tagging.metrics import reported
from satpipe.pipeline.tagging.progress import Progress
from satpipe.pipeline.tagging.run import TagRun
from satpipe.pipeline.tagging.worker import WorkerOptions
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.cutting import chunk_samples
from satpipe.sat.taggers.loaded import LoadedTagger

log = logging.getLogger("satpipe")


@dataclass(frozen=True)
class Summary:
    """The contents of the tables after a run.

    Attributes:
        recordings: Number of recordings.
        statuses: Number of recordings with each status.
        examples: Some recordings that are not ok, with the reason.
        warnings: What is odd about recordings but did not stop them.
        duration_s: Total length of the recordings.
        tagged_s: Length that this run tagged.
        elapsed_s: Duration of the run, without the start-up of Ray.
        seconds: Time that workers spent, by stage.
        problems: Folders that could not be read.
        not_read: Number of files left out since their extension is not one of sound, by extension.
        times: The start times that are known.
        zone: The time zone given; None: UTC.
        files: Number of files joined to deployments, and number of deployments; None without `join`.
        not_joined: Files that this run did not join, and why.
        left_out: Files that are not tagged because of --since or --until.
    """

    recordings: int
    statuses: dict[str, int]
    examples: dict[str, str]
    warnings: Warnings
    duration_s: float
    tagged_s: float
    elapsed_s: float
    seconds: dict[str, float]
    problems: list[str]
    not_read: dict[str, int]
    times: TimesKnown
    zone: str | None
    files: tuple[int, int] | None
    not_joined: NotJoined
    left_out: LeftOut

    @property
    def complete(self) -> bool:
        """True if every recording was tagged from start to end, apart from those of another time."""
        return not (self.problems or self.left_out.unknown) and set(self.statuses) <= {"ok"}


@lists(TagOptions)
def tag(*inputs: str | Path, **options: Any) -> Summary:
    """Tag recordings into an output folder, as `satpipe tag` does.

    >>> summary = satpipe.tag("recordings", out="out", threshold=0.2)
    >>> summary.complete, summary.recordings, summary.statuses
    (True, 2, {'ok': 2})

    Calling it again continues a run that was stopped, and tags recordings that are new or have changed.

    Args:
        inputs: Files, folders (searched recursively) or glob patterns.
        options: Given as keyword arguments.

    Returns:
        The contents of the tables after the run.

    Raises:
        ConfigError: An option cannot work, or no recording is found.
        CheckpointError: The model's file is not valid.
        OutputError: The output cannot be written, or contains tables of another model or other options.
    """
    given = TagOptions(tuple(map(str, inputs)), **options)
    return run(given, make_plan(given), lambda progress: None)


def run(
    options: TagOptions, plan: Plan, report: Callable[[Progress], None], tell: Callable[[str], None] = lambda note: None
) -> Summary:
    """Tag the recordings that remain.

    Args:
        options: The options of the run.
        plan: The plan for these options.
        report: Called with the progress from time to time.
        tell: Called with notes to the user, one line each.

    Raises:
        OutputError: The output cannot be written, or contains other tables.
        ConfigError: Ray cannot be reached, or the device does not exist.
    """
    if plan.remaining:
        ray_engine.prepare(options.address, options.workers)
    output = Output(options.out)
    elapsed_s = 0.0
    options = recorded(options, output)
    description = describe(options, plan.checkpoint, plan.embedding_size)
    damage = plan.damage
    dropped = {*damage.batches, *(output.batches.names if len(plan.lacking) else ())}
    removed = set(plan.outdated | (plan.without_files if options.prune else frozenset()))
    idle = not (plan.remaining or removed or dropped)  # a folder does not grow by a log each time it is looked at
    as_json = options.log_format == "json"  # has all warnings of the log, so that no note is needed
    note = (lambda note: None) if as_json else tell
    heartbeat = Heartbeat(output.folder, description["id"], plan.search.problems, note)
    heartbeat.progress = Progress(files=plan.remaining, size_bytes=plan.remaining_bytes)
    watched = logged(output, description, heartbeat, in_file=not idle, as_json=as_json)
    with output.claim(description, overwrite=options.overwrite, damaged=dropped, during=watched):
        for problem in damage.problems:
            log.warning("damaged tables: %s", problem)
        output.batches.remove(removed)
        _note_retried(plan.outdated)
        not_joined, left_out = NotJoined(), LeftOut()
        if plan.remaining:
            with ray_engine.start(options.address, options.workers, options.device) as ray:
                import_module("pandas")  # Arrow needs it later; workers are still starting now
                begun = perf_counter()
                options = settled(ray, options, plan.checkpoint, tell)
                description["identity"]["precision"] = options.precision
                output.note(description)
                tagged = AlreadyTagged(output.batches.recordings(), options)
                sources = tagged.remaining(list(plan.search), plan.resolver.names)
                if options.by_time:
                    sources, left_out = within(ray, sources, plan.resolver, options)
                    _note_retried(retried := tagged.outdated(sources))
                    output.batches.remove(set(retried))
                if options.join:
                    sources, not_joined = joined(ray, sources, plan.resolver, options.join_gap_s)
                    sources, outdated = tagged.remaining_joined(sources)
                    output.batches.remove(outdated)
                tagging = make_run(ray, output, plan, options, description)
                heartbeat.progress = tagging.progress
                show = reported(report, str(output.folder)) if options.address else report
                tagging.go(iter(sources), len(sources), sum(source.size_bytes for source in sources), show)
                elapsed_s = perf_counter() - begun
        times = set_times(output.batches, plan.resolver, split=options.channels == "split", gap_s=options.join_gap_s)
        recordings = output.batches.recordings(["status", "reason", "recording", "duration_s", "files", "warnings"])
        progress = heartbeat.progress
        finished = {"finished": now(), "elapsed_s": round(elapsed_s, 3), "tagged_s": progress.tagged_s}
        output.note(description | finished | {"batches": output.batches.names})
        _score_own_classes(options, output, description)
    return Summary(
        recordings=len(recordings),
        statuses=counts(recordings["status"]),
        examples=problems(recordings, EXAMPLES),
        warnings=warnings(recordings, EXAMPLES),
        duration_s=pc.sum(recordings["duration_s"]).as_py() or 0.0,
        tagged_s=progress.tagged_s,
        elapsed_s=elapsed_s,
        seconds=dict(progress.seconds),
        problems=plan.search.problems,
        not_read=plan.search.not_read,
        times=times,
        zone=options.time_zone,
        files=_joined(recordings["files"]) if options.join else None,
        not_joined=not_joined,
        left_out=left_out,
    )


def _note_retried(recordings: Iterable[str]) -> None:
    """Note in the log which recordings in the tables are tagged again."""
    reason = "its file has changed, or it could not be tagged before"
    for name in sorted(recordings):
        log.info(
            "%s is tagged again: %s", name, reason, extra=event("recording_retried", recording=name, reason=reason)
        )


def _score_own_classes(options: TagOptions, output: Output, description: dict[str, Any]) -> None:
    """Score what was tagged for the own classes given, and for those that the folder has tables of already."""
    if options.own_classes:
        put(output.folder, Path(options.own_classes))
    for name in own_names(output.folder):
        own_table(output.folder, name).update(Tables(output.folder, scores=False), description)


def _joined(files: pa.ChunkedArray) -> tuple[int, int]:
    """Return the number of files that are joined, and the number of deployments."""
    return pc.sum(pc.list_value_length(files)).as_py() or 0, len(files) - files.null_count


def make_run(
    ray: ray_engine.Engine,
    output: Output,
    plan: Plan,
    options: TagOptions,
    run: dict[str, Any],
) -> TagRun:
    """Prepare a run, from `describe`, on a Ray that has started."""
    config = plan.checkpoint.config
    worker = WorkerOptions(
        folder=str(output.folder),
        model_id=plan.checkpoint.sha256,
        config=config,
        cut=options.cut,
        precision=options.precision,
        cuda=ray.gpus > 0,
        batch_chunks=plan.batch_chunks,
        embedding_size=plan.embedding_size,
    )
    table = TableOptions(
        run_id=run["id"],
        model=model_name(run["identity"]),
        chunk_samples=chunk_samples(config, options.cut),
        threshold=options.threshold,
        top_k=options.top_k,
        scores=options.scores,
        embedding_size=plan.embedding_size,
    )
    return TagRun(
        ray, output, plan.checkpoint, worker=worker, table=table, channels=options.channels, span_s=options.span_s
    )


def describe(options: TagOptions, checkpoint: LoadedTagger, embedding_size: int = 0) -> dict[str, Any]:
    """Return the contents of `run.json`: how the tables were made."""
    config = checkpoint.config
    size = chunk_samples(config, options.cut)
    return {
        **this_run(),
        "identity": {  # tables of another identity are never mixed with these
            "model_sha256": checkpoint.sha256,
            "arch": config.name,
            "cut": options.cut,
            "memory": "on" if config.streaming else "off",  # also off for a model without one
            "delay_s": float(config.script_chunk_s),
            "grids": config.grids,
            "combine": config.combine,
            "precision": options.precision,
            "channels": options.channels,
            "threshold": options.threshold,
            "top_k": options.top_k,
            "scores": options.scores,
            "join_gap_s": options.join_gap_s if options.join else None,
        },
        "model": {
            **asdict(config),
            "name": options.model,  # as given; the configuration's name is the identity's `arch`
            "source": checkpoint.source,
            "sha256": checkpoint.sha256,
            "chunk_samples": size,  # from the start of a chunk to the start of the next
            "streaming": checkpoint.has_memory,  # True if it has a memory, on or off
            "metadata": checkpoint.metadata,
        },
        "chunk_s": size / SAMPLE_RATE_HZ,
        "embeddings": embedding_size,  # values of each; 0: there are none; not part of the identity
        "clock": {  # of the last run; not part of the identity
            "time_zone": options.time_zone,
            "time_pattern": options.time_pattern,
            "times": options.times and str(options.times),
            "clock_marks": options.clock_marks and str(options.clock_marks),
        },
        "inputs": [str(locate(given)) for given in options.inputs],
        "labels": [{"index": label.index, "mid": label.mid, "name": label.name} for label in weak_labels()],
    }
