"""Let Ray start before a run is planned. Imports little: planning needs more, and can import it meanwhile."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from satpipe.jobs.options.tag import TagOptions
from satpipe.pipeline import ray_engine

ONE_WORKER_BYTES = 2**19  # of recordings; another worker would take longer to start than one to tag them


def start_ray(options: TagOptions) -> TagOptions:
    """Let Ray start in the background if the run is sure to need it.

    Returns:
        The options, with one worker if more would be of no use.
    """
    if options.address is None and options.workers is None and _small(options.inputs):
        options = replace(options, workers=1)
    if not Path(options.out, "run.json").exists():  # otherwise nothing may remain to be tagged
        ray_engine.prepare(options.address, options.workers)
    return options


def _small(inputs: Iterable[str]) -> bool:
    """Return True if all files there are small together."""
    total_bytes = 0
    for path in map(Path, inputs):
        if not path.exists():  # a pattern, or in an object store
            return False
        for file in path.rglob("*") if path.is_dir() else [path]:
            total_bytes += file.stat().st_size if file.is_file() else 0
            if total_bytes > ONE_WORKER_BYTES:
                return False
    return True
