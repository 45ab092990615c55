"""The options of `satpipe report`."""

from collections.abc import Iterable
from dataclasses import dataclass

from satpipe.sat.labels import Key


@dataclass(frozen=True)
class ReportOptions:
    """Options of `satpipe report` of one folder, as on its command line."""

    labels: Key | Iterable[Key] | None = None
    """Classes; None: all, and those found most have maps and moments."""
    recordings: str | Iterable[str] | None = None
    """Names or patterns, see `Tables.choose`; None: all."""
    threshold: float = 0.5
    """Minimum score of a found label."""
    time_zone: str = "UTC"
    """Time zone of the times shown, a name of the IANA time zone database."""
    audio: bool = True
    """True if the moments include their sound."""
