"""Steps that each make one folder, and a run of them that continues where it was stopped.

    OUT/NAME-1a2b3c4d5e/       what a step makes
    OUT/NAME-1a2b3c4d5e.json   written when the step is done: its settings, the steps it builds on, its duration

The digits stand for the step's settings and for the steps it builds on. With other settings a step makes another
folder, so a result is never taken for that of other settings, and nothing that took hours is overwritten.
"""

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock, Timeout
from satpipe.pipeline.storage import write_text
from satpipe.sat.errors import OutputError

DIGITS = 10
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """Where steps run.

    Attributes:
        workers: Maximum number of simultaneous tasks.
        address: Address of a running Ray cluster; None: Ray is started here.
        device: cpu, cuda, or auto for GPUs if there are any.
        at_once: Number of trainings at the same time.
    """

    workers: int | None = None
    address: str | None = None
    device: str = "auto"
    at_once: int = 1


@dataclass(frozen=True, eq=False)
class Step(ABC):
    """A step; subclasses add what it does.

    Attributes:
        name: Begins the name of its folder.
        inputs: The steps whose folders it reads, by role.
    """

    name: str
    inputs: Mapping[str, "tuple[Step, ...]"]

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything besides the inputs that determines the result, as JSON."""

    @abstractmethod
    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        """Make the folder, or continue to.

        Args:
            folder: The folder.
            inputs: The folders of the inputs by role, separated by commas.
            cluster: Where to run.
            say: Called with lines for the user.
        """

    @property
    def trains(self) -> bool:
        """True if the step takes hours on one GPU, so that several such steps run at the same time."""
        return False

    @cached_property
    def digest(self) -> str:
        """Hash of the settings and of all steps that this one builds on."""
        built_on = {role: [step.digest for step in steps] for role, steps in self.inputs.items()}
        text = json.dumps([self.name, self.settings, built_on], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

    def folder(self, out: Path) -> Path:
        """Return the step's folder."""
        return out / f"{self.name}-{self.digest}"

    def marker(self, out: Path) -> Path:
        """Return the file that exists when the step is done."""
        return out / f"{self.name}-{self.digest}.json"

    def done(self, out: Path) -> bool:
        """Return True if the step need not run."""
        return self.marker(out).is_file()

    def needed(self) -> "Iterator[Step]":
        """Yield the steps that this one builds on, and itself, each after its inputs."""
        for steps in self.inputs.values():
            for step in steps:
                yield from step.needed()
        yield self


def in_order(wanted: Sequence[Step]) -> list[Step]:
    """Return the wanted steps and those that they build on, each once and after its inputs."""
    return list({step.digest: step for last in wanted for step in last.needed()}.values())


def run(steps: Sequence[Step], out: Path, cluster: Cluster, say: Say) -> None:
    """Run the steps that are not done.

    Trainings run at the same time, up to `cluster.at_once`, and all other steps alone.

    Args:
        steps: As `in_order` returns them.
        out: Folder of the steps' folders.
        cluster: Where to run.
        say: Called with lines for the user.

    Raises:
        OutputError: Another run uses the folder, or it cannot be written.
        SatpipeError: A step failed; those that were running at the same time are done.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            left = []
            for step in steps:
                say(f"{step.name}: done before") if step.done(out) else left.append(step)
            while left:
                together = next_steps(left)
                _run_together(together, out, cluster, say)
                left = [step for step in left if step not in together]
    except Timeout:
        raise OutputError(f"another run is using {out}: wait until it has finished") from None


def next_steps(left: Sequence[Step]) -> list[Step]:
    """Return the steps to run next: the first one that can run, and if it trains, all others that can train now.

    Args:
        left: The steps that are not done.
    """
    waiting = {step.digest for step in left}
    ready = [s for s in left if not any(each.digest in waiting for steps in s.inputs.values() for each in steps)]
    others = [step for step in ready if not step.trains]
    return others[:1] or ready


def _run_together(steps: Sequence[Step], out: Path, cluster: Cluster, say: Say) -> None:
    """Run steps at the same time; after an error no further one starts."""
    waiting, errors = list(steps), list[Exception]()

    def work() -> None:
        while waiting and not errors:
            step = waiting.pop(0)
            try:
                _run_one(step, out, cluster, say)
            except Exception as error:  # noqa: BLE001  (raised below, in the caller's thread)
                errors.append(error)

    if len(steps) == 1:
        work()
    else:  # as daemons: the user's Ctrl-C ends the program without waiting for them
        threads = [threading.Thread(target=work, daemon=True) for _ in steps[: cluster.at_once]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _run_one(step: Step, out: Path, cluster: Cluster, say: Say) -> None:
    folder, begun = step.folder(out), perf_counter()
    for earlier in sorted(out.glob(f"{step.name}-{'?' * DIGITS}.json")):
        say(f"{step.name}: what was made with other settings is kept in {earlier.with_suffix('')}")
    say(f"{step.name}: {'continues' if folder.exists() else 'begins'} in {folder}")
    inputs = {role: ",".join(str(each.folder(out)) for each in steps) for role, steps in step.inputs.items()}
    step.run(folder, inputs, cluster, lambda line: say(f"{step.name}: {line}"))
    description = {
        "step": step.name,
        "settings": step.settings,
        "inputs": {role: [each.folder(out).name for each in steps] for role, steps in step.inputs.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(perf_counter() - begun, 1),  # of the last start
        "satpipe": version("satpipe"),
    }
    write_text(step.marker(out), json.dumps(description, indent=1) + "\n")
    say(f"{step.name}: done")
