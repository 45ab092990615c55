"""A job that runs every minute: recordings arrive, workers are killed, and the object store refuses requests."""

import csv
import io
import os
import random
import subprocess
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from audio import Samples
from object_store import Refusing, in_store
from satpipe.jobs.benchmark.soak import used
from satpipe.jobs.commands.main import NOT_FINISHED

PER_ROUND = 3
LENGTH_S = (10, 20)
GROW_EVERY_S = 5.0
LOOK_EVERY_S = 0.3
LAST_TRIES = 3
KINDS = {  # how often each kind of file arrives
    "whole": 10,
    "growing": 4,
    "cut": 2,
    "damaged": 2,
    "empty": 1,
    "text": 1,
}


@dataclass
class Growing:
    """A file that is still being written: a recorder appends to it, or a copy of it becomes longer."""

    place: Any
    content: bytes
    step: int
    written: int = 0

    def grow(self) -> bool:
        """Write the next part; return True if the file is complete."""
        begin, self.written = self.written, min(len(self.content), self.written + self.step)
        if isinstance(self.place, Path):
            with self.place.open("ab") as file:
                file.write(self.content[begin : self.written])
        else:
            self.place.write_bytes(self.content[: self.written])
        return self.written == len(self.content)


@dataclass
class Arrivals:
    """Files that arrive in places: a folder, and a folder of the store."""

    sound: Samples
    places: tuple[Any, ...]
    random: random.Random
    growing: list[Growing] = field(default_factory=list)
    files: int = 0

    def arrive(self) -> None:
        """Let the files of one round arrive."""
        for _ in range(PER_ROUND):
            form = self.random.choice(("wav", "flac"))
            kind = self.random.choices(list(KINDS), list(KINDS.values()))[0]
            place = self.random.choice(self.places) / f"day{self.files // 50}" / f"{self.files:04}-{kind}.{form}"
            content = self._content(kind, form)
            self.files += 1
            place.parent.mkdir(parents=True, exist_ok=True)
            if kind == "growing":
                self.growing.append(Growing(place, content, len(content) // self.random.randint(5, 15)))
                self.growing[-1].grow()
            else:
                place.write_bytes(content)

    def grow(self, *, to_the_end: bool = False) -> None:
        """Let files grow by a part, or all of them to their ends."""
        self.growing = [each for each in self.growing if not each.grow()]
        while to_the_end and self.growing:
            self.grow()

    def _content(self, kind: str, form: str) -> bytes:
        if kind == "text":
            return b"This is no audio.\n"
        rate_hz, channels = self.random.choice((16_000, 22_050, 48_000)), self.random.choice((1, 1, 2))
        frames = 0 if kind == "empty" else int(rate_hz * self.random.uniform(*LENGTH_S))
        piece = np.resize(np.roll(self.sound, self.random.randrange(len(self.sound))), (channels, frames)).T
        file = io.BytesIO()
        soundfile.write(file, piece, rate_hz, format=form.upper(), subtype="PCM_16")
        content = bytearray(file.getvalue())
        if kind == "cut":
            del content[int(len(content) * self.random.uniform(0.2, 0.9)) :]
        if kind == "damaged":
            middle = len(content) // 2
            content[middle : middle + 2000] = self.random.randbytes(2000)
        return bytes(content)


@dataclass
class Round:
    """One run of `satpipe tag`, as a row of the CSV.

    Attributes:
        minute: Minutes since the first round.
        files: Files that have arrived.
        elapsed_s: How long the run took.
        exit_code: Its exit code.
        memory_mb: The most memory that it used, with its workers and Ray.
        open_files: The most files that it had open.
        table_files: Parquet files in the output folder after it.
        table_mb: Their size.
        requests: Requests that the store has received so far.
        refused: Those of them that it refused.
        killed: Workers killed so far.
        left: Files and folders left in the folder for temporary files.
    """

    minute: float
    files: int
    elapsed_s: float
    exit_code: int
    memory_mb: float
    open_files: int
    table_files: int
    table_mb: float
    requests: int
    refused: int
    killed: int
    left: int


class Soak:
    """Runs `satpipe tag` round after round while everything goes wrong."""

    def __init__(
        self,
        command: list[str],
        arrivals: Arrivals,
        store: Refusing,
        out: str,
        folder: Path,
        *,
        round_s: float,
        kill_every_s: float,
    ) -> None:
        """Prepare; `go` starts it.

        Args:
            command: The command line.
            arrivals: The files.
            store: Where some of them are.
            out: The output folder, in the store.
            folder: Gets the printed lines of each run, the CSV, and temporary files.
            round_s: From the start of a round to the start of the next, unless a run takes longer.
            kill_every_s: From one killed worker to the next; the first is killed at once.
        """
        self._command, self._arrivals, self._store, self._out = command, arrivals, store, out
        self._folder, self._round_s, self._kill_every_s = folder, round_s, kill_every_s
        self._begun_s = self._grown_s = time.monotonic()
        self._kill_s = self._begun_s  # from when on a worker is to be killed
        self.killed = 0
        self.rounds: list[Round] = []
        (folder / "tmp").mkdir(parents=True)

    def go(self, minutes: float) -> None:
        """Run rounds for some minutes, and one more when all files are complete."""
        while not self.rounds or time.monotonic() < self._begun_s + 60 * minutes:
            started_s = time.monotonic()
            self._arrivals.arrive()
            self._note(self._run())
            while time.monotonic() < started_s + self._round_s:
                self._grow_if_due()
                time.sleep(LOOK_EVERY_S)
        self._arrivals.grow(to_the_end=True)
        for _ in range(LAST_TRIES):
            self._note(self._run())
            if self.rounds[-1].exit_code != NOT_FINISHED:
                break

    def _note(self, done: Round) -> None:
        self.rounds.append(done)
        print(done)
        with (self._folder / "rounds.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, [each.name for each in fields(Round)])
            table.writeheader()
            table.writerows(map(asdict, self.rounds))

    def printed(self) -> list[str]:
        """Return the first sentence of each line that a run has printed."""
        texts = [path.read_text() for path in sorted(self._folder.glob("*.txt"))]
        return [line.partition(". ")[0] for text in texts for line in text.splitlines()]

    def _run(self) -> Round:
        begun_s, memory_mb, open_files = time.monotonic(), 0.0, 0
        with (self._folder / f"{len(self.rounds):04}.txt").open("w") as printed:
            environment = {**os.environ, "TMPDIR": str(self._folder / "tmp")}
            process = subprocess.Popen(self._command, stdout=printed, stderr=printed, env=environment)
            while process.poll() is None:
                memory_mb, open_files = map(max, zip((memory_mb, open_files), used(process.pid), strict=True))
                self._grow_if_due()
                self._kill_if_due(process.pid)
                time.sleep(LOOK_EVERY_S)
        elapsed_s = time.monotonic() - begun_s
        tables = [path.stat().st_size for path in in_store(self._out).rglob("*.parquet")]
        return Round(
            minute=round((begun_s - self._begun_s) / 60, 2),
            files=self._arrivals.files,
            elapsed_s=round(elapsed_s, 1),
            exit_code=process.returncode,
            memory_mb=round(memory_mb),
            open_files=open_files,
            table_files=len(tables),
            table_mb=round(sum(tables) / 1e6, 2),
            requests=self._store.requests,
            refused=self._store.refused,
            killed=self.killed,
            left=len(list((self._folder / "tmp").iterdir())),
        )

    def _grow_if_due(self) -> None:
        if time.monotonic() >= self._grown_s + GROW_EVERY_S:
            self._grown_s = time.monotonic()
            self._arrivals.grow()

    def _kill_if_due(self, pid: int) -> None:
        """Kill a worker that runs a task, as soon as there is one."""
        if time.monotonic() < self._kill_s:
            return
        for process in busy_workers(pid)[:1]:
            process.kill()
            self.killed += 1
            self._kill_s = time.monotonic() + self._kill_every_s


def busy_workers(pid: int) -> list[psutil.Process]:
    """Return the Ray workers among the descendants of a process that run a task."""
    found = []
    try:
        for process in psutil.Process(pid).children(recursive=True):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_call"):
                found.append(process)
    except psutil.Error:  # one has just ended
        pass
    return found
