"""Progress of a run."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SHORT_S = 360.0  # below a tenth of an hour


def length(seconds: float, like_s: float | None = None) -> str:
    """Return a length for a message: in hours, or if `like_s`, by default the length itself, is short in seconds."""
    short = (seconds if like_s is None else like_s) < _SHORT_S
    return f"{seconds:.0f} s" if short else f"{seconds / 3600:.2f} h"


@dataclass
class Progress:
    """Progress of a run; lengths in seconds of audio.

    Attributes:
        files: Number of files to tag, with `size_bytes` in total.
        files_probed: Number of files whose headers are read, with `probed_bytes` in total.
        probed_s: Length of their recordings.
        done_s: Length tagged, including `resumed_s`.
        resumed_s: Length that earlier runs had tagged.
        elapsed_s: Time since the run began to read headers.
        recordings: Number of recordings finished in this run, by status.
        seconds: Workers' time by stage.
    """

    files: int = 0
    size_bytes: int = 0
    files_probed: int = 0
    probed_bytes: int = 0
    probed_s: float = 0.0
    done_s: float = 0.0
    resumed_s: float = 0.0
    elapsed_s: float = 0.0
    recordings: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    @property
    def found_s(self) -> float:
        """Length of all recordings, estimated from the size of files whose headers are not read yet."""
        unprobed = self.files_probed < self.files and self.probed_bytes
        return self.probed_s * (self.size_bytes / self.probed_bytes if unprobed else 1.0)

    @property
    def text(self) -> str:
        """The length done and found; before any header is read, the number of headers to read."""
        if not self.found_s:
            return f"reading headers: {self.files_probed:,} of {self.files:,}"
        about = "" if self.files_probed == self.files else "about "
        done, found = length(self.done_s, self.found_s), length(self.found_s)
        return f"{done.rpartition(' ')[0]} of {about}{found}"

    @property
    def tagged_s(self) -> float:
        """Length tagged by this run."""
        return self.done_s - self.resumed_s

    @property
    def failures(self) -> int:
        """Number of recordings that were not tagged from start to end."""
        return self.recordings.total() - self.recordings["ok"]

    @property
    def rate(self) -> float:
        """Seconds of audio tagged per second; 0 until some are."""
        return self.tagged_s / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Time left at this rate; None while that is not known."""
        return max(0.0, self.found_s - self.done_s) / self.rate if self.rate > 0 else None

    def figures(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        left_s = self.left_s
        return {
            "files": self.files,
            "files_probed": self.files_probed,
            "found_s": round(self.found_s, 3),
            "done_s": round(self.done_s, 3),
            "resumed_s": round(self.resumed_s, 3),
            "elapsed_s": round(self.elapsed_s, 3),
            "x_realtime": round(self.rate, 3),
            "left_s": None if left_s is None else round(left_s, 1),
            "recordings": dict(self.recordings),
        }
