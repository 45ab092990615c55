"""Plan a run: the model, the recordings, and those that remain to be tagged. Nothing is written."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.already_tagged import AlreadyTagged
from satpipe.jobs.tag.messages import some
from satpipe.jobs.tag.status import EXAMPLES
from satpipe.jobs.tag.time_options import check_times, make_resolver, unmatched
from satpipe.pipeline.option import default_out
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.recordings.recording import file_and_channel
from satpipe.pipeline.start_times.resolver import StartTimeResolver
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.damage import NO_DAMAGE, Damage, find_damage
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import ConfigError, OutputError
from satpipe.sat.model.config import AUTO
from satpipe.sat.own_classes import read_own_classes, table_name
from satpipe.sat.taggers.loaded import LoadedTagger
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.registry import resolve

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?B?)", re.IGNORECASE)
_UNIT_BYTES = {"": 1e6, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9}


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        checkpoint: The model, configured by the options.
        search: The search for recordings.
        files: Number of files found.
        remaining: Number of files to tag.
        remaining_bytes: Their size.
        outdated: Recordings in the tables that are tagged again: their files have changed, or they failed before. With
            --since or --until, they are not known yet.
        without_files: Recordings in the tables whose files no longer exist.
        damage: What is damaged in the output folder: its recordings are tagged again.
        embedding_size: Number of values of an embedding; 0: embeddings are not wanted.
        lacking: Rows of the recordings table, all or none: embeddings are wanted now but were not written, so that
            these recordings are tagged again.
        resolver: Resolves start times.
        notes: Notes to the user before the run starts, one line each.
        batch_chunks: Chunks per batch; None: the fastest number.
    """

    checkpoint: LoadedTagger
    search: Search
    files: int
    remaining: int
    remaining_bytes: int
    outdated: frozenset[str]
    without_files: frozenset[str]
    damage: Damage
    embedding_size: int
    lacking: pa.Table
    resolver: StartTimeResolver
    notes: tuple[str, ...] = ()
    batch_chunks: int | None = None


def plan(options: TagOptions) -> Plan:
    """Examine model, input and output; write nothing.

    Raises:
        ConfigError: The model, the time zone or a recording is not found, a CSV cannot be read, or options contradict
            each other.
        CheckpointError: The model's file is not valid.
        OutputError: The tables in the output folder cannot be read, or repaired from these recordings.
    """
    if not (options.channels in ("mix", "split") or (options.channels.isdecimal() and int(options.channels) > 0)):
        raise ConfigError(f"--channels must be mix, split or a channel number from 1, not '{options.channels}'")
    if options.precision == "fp16" and options.device != "cuda":
        raise ConfigError("--precision fp16 is for GPUs and needs --device cuda; on a CPU use bf16")
    if not options.inputs:
        raise ConfigError("no recordings are given: give files, folders or patterns")
    if str(options.out) == default_out():
        Output(options.out).refuse_others()
    checkpoint = resolve(options.model, options.arch).adapted(
        options.delay_s, memory=options.memory == "on", grids=options.grids, combine=options.combine
    )
    if not isinstance(checkpoint, Checkpoint) and options.cut == "script":
        raise ConfigError(f"{checkpoint.config.name} reads whole waveforms: leave --cut out")
    resolver = make_resolver(options)
    check_times(options)
    search = Search(options.inputs)
    sources = list(search)
    if not sources:
        others = [f"files with an extension that is not read: {', '.join(search.not_read)}"] if search.not_read else []
        raise ConfigError(f"no recordings in {', '.join(options.inputs)}", *others, *search.problems)
    run = None if options.overwrite else Output(options.out).run()
    embedding_size = _embedding_size(checkpoint, options, run)
    damage = find_damage(locate(options.out), run) if run else NO_DAMAGE
    kept, lacking = damage.recordings, NO_DAMAGE.recordings
    if run and embedding_size and not run.get("embeddings"):
        kept, lacking = lacking, kept
    _check_files(options, sources, damage, lacking)
    if options.by_time and (damage.problems or len(lacking)):
        what = "the tables are damaged" if damage.problems else "the tables have no embeddings yet"
        raise OutputError(
            *damage.problems[:EXAMPLES], f"{what}, so their recordings are tagged again: leave out --since and --until"
        )
    tagged = AlreadyTagged(kept, options)
    remaining = tagged.remaining(sources, resolver.names)
    return Plan(
        checkpoint=checkpoint,
        search=search,
        files=len(sources),
        remaining=len(remaining),
        remaining_bytes=sum(source.size_bytes for source in remaining),
        outdated=frozenset() if options.by_time else tagged.outdated(remaining),
        without_files=tagged.without_files(sources),
        damage=damage,
        embedding_size=embedding_size,
        lacking=lacking,
        resolver=resolver,
        notes=(*unmatched(resolver, options, [source.recording for source in sources]), *_notes(options, run, damage)),
        batch_chunks=_batch_chunks(checkpoint, options),
    )


def _embedding_size(checkpoint: LoadedTagger, options: TagOptions, run: Mapping[str, Any] | None) -> int:
    """Return the number of values of an embedding if embeddings are wanted, or are in the tables already; else 0."""
    wanted = options.embeddings or options.own_classes is not None
    if wanted:
        checkpoint.check_embeddings()
    if options.own_classes:
        table_name(options.own_classes)
        classes = read_own_classes(options.own_classes)
        classes.check_model(checkpoint.sha256, checkpoint.config.name, options.own_classes)
    return checkpoint.embedding_size if wanted or (run and run.get("embeddings")) else 0


def _check_files(options: TagOptions, sources: list[Source], damage: Damage, lacking: pa.Table) -> None:
    """Make sure that all recordings that are damaged, or lack embeddings, can be tagged again."""
    given = {source.recording for source in sources}
    split = options.channels == "split"
    affected = damage.affected.union(lacking["recording"].to_pylist())
    lost = sorted(name for name in affected if file_and_channel(name, split=split)[0] not in given)
    if lost and not options.prune:
        what = "embeddings cannot be added" if len(lacking) else "this cannot be repaired"
        raise OutputError(
            *damage.problems[:EXAMPLES],
            f"{what} without recordings that are not given here: {some(lost)}. Give all recordings; --prune gives up "
            "those that no longer exist",
        )


def _notes(options: TagOptions, run: Mapping[str, Any] | None, damage: Damage) -> Iterator[str]:
    if damage.old:
        yield (
            "the tables were written by an earlier version of satpipe: they are first brought to this version, without "
            "tagging anything again"
        )
    if options.by_time:
        yield "of these, only recordings that start in the time given are tagged; their headers are read first"
    if run and run.get("embeddings") and not (options.embeddings or options.own_classes):
        yield "the tables have embeddings: they are also written for what is tagged now"


def _batch_chunks(checkpoint: LoadedTagger, options: TagOptions) -> int | None:
    """Return the number of chunks per batch that fit in the memory given, measured on this machine."""
    if options.max_batch_memory is None:
        return None
    given = _SIZE.fullmatch(options.max_batch_memory.strip())
    if given is None:
        raise ConfigError(f"--max-batch-memory must be a size such as 256MB or 1.5GB, not '{options.max_batch_memory}'")
    limit_bytes = int(float(given[1]) * _UNIT_BYTES[given[2].upper()])
    from satpipe.sat.taggers.cost import largest_batch  # imports torch

    one_grid = checkpoint.adapted()  # a batch has chunks of one grid
    precision = "fp32" if options.precision == AUTO else options.precision  # whose batches need the most memory
    return largest_batch(one_grid.tagger(options.cut, precision=precision), limit_bytes)
