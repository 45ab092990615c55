"""Progress of a run."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Progress:
    """How far a run is; lengths in seconds of audio.

    Attributes:
        files: Found, less those done in earlier runs.
        files_probed: Of these, headers read.
        found_s: Length of the recordings whose headers are read, by estimate also of the others.
        done_s: Of it, tagged.
        resumed_s: Of that, by an earlier run.
        recordings: Finished in this run, by status.
        seconds: Workers' time by stage.
    """

    files: int = 0
    files_probed: int = 0
    found_s: float = 0.0
    done_s: float = 0.0
    resumed_s: float = 0.0
    recordings: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    @property
    def tagged_s(self) -> float:
        """Length tagged by this run."""
        return self.done_s - self.resumed_s

    @property
    def failures(self) -> int:
        """Recordings that were not tagged from start to end."""
        return self.recordings.total() - self.recordings["ok"]
