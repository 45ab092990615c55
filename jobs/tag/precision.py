"""The precision of a run: the one given, that of the tables that exist, or the fastest on a worker."""

import logging
from collections.abc import Callable
from dataclasses import replace

from satpipe.jobs.options.tag import TagOptions
from satpipe.pipeline.ray_engine import Engine, Lost
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tagging.worker import compare_precisions
from satpipe.sat.model.config import AUTO
from satpipe.sat.taggers.loaded import LoadedTagger

log = logging.getLogger("satpipe")


def recorded(options: TagOptions, output: Output) -> TagOptions:
    """Replace `auto` with the precision of the tables in the output folder, if it has any."""
    run = None if options.precision != AUTO or options.overwrite else output.run()
    return replace(options, precision=run.get("identity", {}).get("precision", AUTO)) if run else options


def settled(ray: Engine, options: TagOptions, loaded: LoadedTagger, tell: Callable[[str], None]) -> TagOptions:
    """Replace `auto` with the precision that is the fastest on one worker, which stands for all nodes of a cluster.

    Args:
        ray: An engine without tasks.
        options: The options of the run.
        loaded: The model.
        tell: Called with a note if a precision is chosen, or if the one given is slower than fp32.

    Raises:
        ConfigError: The model or the worker's device does not support the precision.
    """
    if options.precision == "fp32":
        return options
    ray.submit(None, compare_precisions, ray.share(loaded), options.precision, options.cut, ray.gpus > 0)
    while not (results := list(ray.results(timeout_s=1.0))):
        pass
    ((_, found),) = results
    if isinstance(found, Lost):
        log.warning("precisions could not be compared: %s", found.reason)
        return options if options.precision != AUTO else replace(options, precision="fp32")
    if note := found.note(options.precision):
        log.info("%s", note)
        tell(f"note: {note}")
    return options if options.precision != AUTO else replace(options, precision=found.fastest)
