"""`satpipe reproduce`: declare the steps of some tables, plan them, run them."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from satpipe.jobs.evaluate import EvaluationResult, read
from satpipe.jobs.options.reproduce import DELAYS, SIZES, ReproduceOptions
from satpipe.jobs.reproduce.audioset import AudioSet
from satpipe.jobs.reproduce.pipeline import Evaluate, Row, Train, evaluations, published_evaluations
from satpipe.jobs.reproduce.plan import Cost, costs, wall_hours
from satpipe.jobs.reproduce.steps import Cluster, Say, Step, in_order, run
from satpipe.pipeline import ray_engine
from satpipe.pipeline.storage import is_remote, locate
from satpipe.sat.errors import ConfigError, install

STRONG_TABLE = 3


@dataclass(frozen=True)
class Reproduction:
    """The steps of some of the paper's tables.

    Attributes:
        options: The options.
        evaluations: The last steps of the rows that can be made, by table.
    """

    options: ReproduceOptions
    evaluations: Mapping[int, Sequence[Evaluate]]

    @property
    def out(self) -> Path:
        """Folder of the steps' folders."""
        return locate(self.options.out)

    @property
    def audioset(self) -> AudioSet:
        """The data."""
        return AudioSet(locate(self.options.audioset))

    @property
    def steps(self) -> list[Step]:
        """All steps in order."""
        return in_order([last for wanted in self.evaluations.values() for last in wanted])

    @property
    def gpus(self) -> int:
        """Number of trainings at the same time."""
        return self.options.gpus or max(1, torch.cuda.device_count())

    @property
    def missing(self) -> list[str]:
        """Files missing from the AudioSet folder, one line each."""
        return self.audioset.missing(
            training=self.options.from_checkpoints is None, strong=STRONG_TABLE in self.evaluations
        )

    @property
    def free_bytes(self) -> int:
        """Free space on the disk of the output folder."""
        there = next(place for place in (self.out, *self.out.parents) if place.exists())
        return shutil.disk_usage(there).free

    def costs(self) -> tuple[list[Cost], float]:
        """Return what each step takes, and the hours until all are done, see `satpipe.jobs.reproduce.plan`."""
        steps = self.steps
        found = costs(steps, self.out, self.audioset, self.options.gpu)
        return found, wall_hours(steps, found, self.gpus)

    def run(self, say: Say) -> dict[int, list[EvaluationResult]]:
        """Run the steps that are not done; return the results of the rows by table.

        Raises:
            ConfigError: Data or a package are missing.
            OutputError: Another run uses the folder, or it cannot be written.
            SatpipeError: A step failed; the next run continues with it.
        """
        if self.missing:
            raise ConfigError("AudioSet is not complete:", *self.missing)
        steps = self.steps
        trainings = [step for step in steps if isinstance(step, Train) and not step.done(self.out)]
        eight_bit = [step for step in trainings if "8bit" in step.config.optimizer]
        if eight_bit and not self.options.address and find_spec("bitsandbytes") is None:
            raise ConfigError(f"{eight_bit[0].config.optimizer} needs bitsandbytes; {install('train')}")
        # The same number for all steps, or Ray would be started again for each.
        cluster = Cluster(os.cpu_count(), self.options.address, self.options.device, self.gpus)
        if not all(step.done(self.out) for step in steps):
            ray_engine.prepare(cluster.address, cluster.workers)  # once, before trainings start in several threads
        run(steps, self.out, cluster, say)
        return {number: [read(last.folder(self.out)) for last in wanted] for number, wanted in self.evaluations.items()}


def declare(rows: Mapping[int, Sequence[Row]], options: ReproduceOptions) -> Reproduction:
    """Return the steps of some tables.

    Args:
        rows: Rows of the tables by number.
        options: The options.

    Raises:
        ConfigError: A configuration cannot be read, a size or delay is unknown, a published checkpoint is missing, or
            the output folder is a URL.
    """
    if is_remote(options.out):
        raise ConfigError(f"--out must be a folder of this machine or its network, not {options.out}")
    audioset = AudioSet(locate(options.audioset))
    left_out = set(DELAYS) - set(_some_of("--delays", options.delays, DELAYS))
    sizes = _some_of("--sizes", options.sizes, SIZES)
    found: dict[int, Sequence[Evaluate]] = {}
    for number, all_rows in rows.items():
        wanted = [row for row in all_rows if f"{row.delay_s:g}" not in left_out]
        kind = "strong" if number == STRONG_TABLE else "weak"
        if options.from_checkpoints:
            found[number] = published_evaluations(wanted, kind, audioset, locate(options.from_checkpoints))
        else:
            found[number] = evaluations(wanted, kind, audioset, sizes=sizes, recipes=options.recipes)
    return Reproduction(options, found)


def _some_of(option: str, given: str, known: Sequence[str]) -> list[str]:
    """Return the values that an option names, separated by commas, in the order of the known ones."""
    named = [value.strip() for value in given.split(",") if value.strip()]
    if unknown := [value for value in named if value not in known]:
        raise ConfigError(f"{option} must be of {', '.join(known)}, not {unknown[0]!r}")
    if not named:
        raise ConfigError(f"{option} must name at least one of {', '.join(known)}")
    return [value for value in known if value in named]
