"""The progress of a run in its output folder, where `satpipe status` reads it on any machine."""

import json
import logging
import platform
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep, time
from types import TracebackType
from typing import Any, get_origin, get_type_hints

from satpipe.pipeline.storage import described, errors, is_remote, written_whole
from satpipe.pipeline.tables.files import PROGRESS
from satpipe.pipeline.tagging.progress import Progress
from satpipe.sat.errors import OutputError

log = logging.getLogger("satpipe")

EVERY_S = 10.0
PATIENCE_S = 2.5 * EVERY_S  # for the next heartbeat
SURELY_OVER_S = 24 * 3600.0  # older than any clock is wrong by: mistaken time zones are at most 14 hours
WATCH_EVERY_S = 1.0
END_WITHIN_S = 10.0


@dataclass(frozen=True)
class Beat:
    """A heartbeat of a run.

    Attributes:
        run_id: The run.
        state: `running`, or how it ended: `finished`, `stopped` by Ctrl-C or SIGTERM, or `failed`.
        host: Name of its machine.
        machine: Text that only processes on the same running machine share.
        number: Counts the heartbeats from 0.
        written: Time of the heartbeat by the clock of its machine, ISO 8601.
        idle_s: Time since its figures last changed.
        error: Why it failed, else "".
        log: Last line of its log.
        not_searched: Folders that could not be searched for recordings, with the reason.
        figures: From `Progress.figures`.
    """

    run_id: str
    state: str
    host: str
    machine: str
    number: int
    written: str
    idle_s: float
    error: str
    log: str
    not_searched: list[str]
    figures: dict[str, Any]


_KINDS = get_type_hints(Beat)


class Heartbeat:
    """Writes the progress of a run into its output folder: at its start, every `EVERY_S`, and at its end.

    A file that cannot be written does not disturb the run: it is tried again with the next heartbeat.

    Attributes:
        progress: Of the run; may be replaced.
        log: Last line of the log.
    """

    def __init__(self, folder: Path, run_id: str, not_searched: list[str], tell: Callable[[str], None]) -> None:
        """Prepare the heartbeat of a run.

        Args:
            folder: The output folder, claimed by this run.
            run_id: As in `run.json`.
            not_searched: Folders that could not be searched for recordings, with the reason.
            tell: Called with a note to the user, one line, if the file cannot be written, and when it can again.
        """
        self.progress = Progress()
        self.log = ""
        self._folder = folder
        self._run_id = run_id
        self._not_searched = not_searched
        self._tell = tell
        self._number = 0
        self._figures, self._changed = self.progress.figures(), monotonic()
        self._writable = True
        self._to_end = threading.Event()
        self._thread = threading.Thread(target=self._live, name="satpipe-heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        """Write the first heartbeat."""
        self._beat("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write how the run ended."""
        self._to_end.set()
        self._thread.join(END_WITHIN_S)  # a store that does not answer must not hold the end up for long
        if not self._thread.is_alive():
            state = "finished" if error is None else "stopped" if kind is KeyboardInterrupt else "failed"
            self._beat(state, f"{type(error).__name__}: {error}" if state == "failed" else "")

    def _live(self) -> None:
        while not self._to_end.wait(EVERY_S):
            self._beat("running")

    def _beat(self, state: str, error: str = "") -> None:
        """Write a heartbeat, unless another run has taken the folder over."""
        figures = self.progress.figures()
        if figures | {"elapsed_s": 0} != self._figures:
            self._figures, self._changed = figures | {"elapsed_s": 0}, monotonic()
        beat = Beat(
            run_id=self._run_id,
            state=state,
            host=platform.node(),
            machine=_machine(),
            number=self._number,
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            idle_s=round(monotonic() - self._changed, 1),
            error=error,
            log=self.log,
            not_searched=self._not_searched,
            figures=figures,
        )
        path = self._folder / PROGRESS
        try:
            if self._number and self._taken_over():
                return
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(asdict(beat), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except errors() as problem:
            if self._writable:
                reason = described(problem)
                self._note(f"{path} cannot be written: {reason}. The run goes on and tries again every {EVERY_S:g} s")
            self._writable = False
            return
        if not self._writable:
            self._note(f"{path} is written again")
        self._writable = True
        self._number += 1

    def _taken_over(self) -> bool:
        """Return True if another run writes to the folder, as can happen in an object store."""
        with suppress(OutputError):
            there = read_beat(self._folder)
            return there is not None and there.run_id != self._run_id
        return False

    def _note(self, text: str) -> None:
        log.warning(text)
        self._tell(f"note: {text}")


def _machine() -> str:
    """Return a text that only processes on the same running machine share: its system's boot, or else its name."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def read_beat(folder: Path) -> Beat | None:
    """Return the last heartbeat in an output folder, or None if no run has written one.

    Raises:
        OutputError: The file cannot be read.
    """
    path = folder / PROGRESS
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except errors(ValueError) as error:
        raise OutputError(f"{path} cannot be read: {described(error)}") from error
    kinds = {name: (int, float) if kind is float else get_origin(kind) or kind for name, kind in _KINDS.items()}
    values: dict[str, Any] = {name: there.get(name) if isinstance(there, dict) else None for name in kinds}
    right = all(isinstance(values[name], kind) for name, kind in kinds.items())
    if not right or not set(Progress().figures()) <= set(values["figures"]):
        raise OutputError(f"{path} is not the file that `satpipe tag` wrote: delete it; the next run writes it again")
    return Beat(**values)


def is_beating(folder: Path, beat: Beat) -> bool:
    """Return True if the run that wrote a heartbeat goes on; may wait `PATIENCE_S` for its next heartbeat.

    The clock of the run's machine is not used. If the store states that the heartbeat was written a moment ago, the run
    goes on; if a day ago, it does not; anything else may be a difference between the clocks of the store and of this
    machine, so that only another heartbeat tells.
    """
    age_s = time() - modified_s(folder / PROGRESS)
    if abs(age_s) < PATIENCE_S or age_s > SURELY_OVER_S:
        return age_s < PATIENCE_S
    deadline = monotonic() + PATIENCE_S
    while monotonic() < deadline:
        sleep(WATCH_EVERY_S)
        if read_beat(folder) != beat:
            return True
    return False


def started_here(beat: Beat) -> bool:
    """Return True if the run is on this machine, and this has not been started again since."""
    return beat.machine == _machine()


def modified_s(path: Any) -> float:
    """Return when a file was written by the clock of its store, in seconds since 1970."""
    return float(path.fs.modified(path.path).timestamp() if is_remote(path) else path.stat().st_mtime)
