"""The plan of a run: the model, the recordings and what is left to tag. Writes nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.time_options import clock_notes, make_clock
from satpipe.jobs.tag.todo import Held
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.start_times.resolver import StartTimeResolver
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.precision import processor_has_bf16
from satpipe.sat.taggers.cost import largest_batch
from satpipe.sat.taggers.interface import LoadedTagger
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.registry import resolve

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?B?)", re.IGNORECASE)


_UNIT_BYTES = {"": 1e6, "B": 1, "K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6, "G": 1e9, "GB": 1e9}


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

    checkpoint: LoadedTagger
    search: Search
    files: int
    todo: int
    todo_bytes: int
    stale: frozenset[str]
    gone: frozenset[str]
    clock: StartTimeResolver
    notes: tuple[str, ...] = ()
    batch_chunks: int | None = None


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
    if not options.inputs:
        raise ConfigError("no recordings are given: name files, folders or patterns")
    checkpoint = resolve(options.model, options.arch).adapted(options.delay_s, memory=options.memory == "on")
    if not isinstance(checkpoint, Checkpoint) and options.cut == "script":
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


def _batch_chunks(checkpoint: LoadedTagger, options: TagOptions) -> int | None:
    """How many chunks may run at once, found by running them here, with the memory given."""
    if options.max_batch_memory is None:
        return None
    given = _SIZE.fullmatch(options.max_batch_memory.strip())
    if given is None:
        raise ConfigError(f"--max-batch-memory is '{options.max_batch_memory}': it takes a size such as 256MB or 1.5GB")
    limit_bytes = int(float(given[1]) * _UNIT_BYTES[given[2].upper()])
    return largest_batch(checkpoint.tagger(options.cut, precision=options.precision), limit_bytes)
