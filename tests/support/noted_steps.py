"""Steps of `satpipe reproduce` that only note that they ran; this module is quick to import in a new process."""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from satpipe.jobs.reproduce.steps import Cluster, Say, Step, in_order, run
from satpipe.sat.errors import TrainingError


@dataclass(frozen=True, eq=False)
class Noted(Step):
    """Appends its name to a file."""

    log: Path
    long: bool = False
    together: threading.Barrier | None = field(default=None, repr=False)
    fails: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        return {"long": self.long}

    @property
    def trains(self) -> bool:
        return self.long

    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        folder.mkdir(exist_ok=True)
        assert all(Path(each).is_dir() for paths in inputs.values() for each in paths.split(","))
        if self.together:
            self.together.wait(20)
        if self.fails:
            raise TrainingError("the loss became nan")
        with self.log.open("a") as file:
            file.write(f"{self.name}\n")
        say("made")


def chain(log: Path) -> list[Step]:
    """Two sets, three trainings, and what follows from them."""
    data = (Noted("set_a", {}, log), Noted("set_b", {}, log))
    first = Noted("mae", {"data": data}, log, long=True)
    second = Noted("full", {"data": data, "init": (first,)}, log, long=True)
    labels = Noted("labels", {"data": data, "teacher": (second,)}, log)
    third = Noted("sat", {"labels": (labels,), "init": (first,)}, log, long=True)
    return in_order([Noted("tags", {"model": (third,)}, log), Noted("other tags", {"model": (second,)}, log)])


def killed_after(log: Path, out: Path, last: str) -> int:
    """Run the chain; kill this process, as kill -9 does, at the first line that ends in a text."""

    def say(line: str) -> None:
        if line.endswith(last):
            os.kill(os.getpid(), signal.SIGKILL)

    run(chain(log), out, Cluster(), say)
    return 0
