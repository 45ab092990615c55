"""`satpipe verify`: the precision of classes, from a sheet in which someone answered what can be heard in clips."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from satpipe.jobs.options.results import VerifyOptions
from satpipe.jobs.verify.job import Verification, Verified, thresholds_file, verification
from satpipe.pipeline.option import lists
from satpipe.pipeline.storage import locate, write_text

__all__ = ["Verification", "Verified", "VerifyOptions", "table", "verification", "verify", "write_thresholds"]
_TYPES = {
    "label": str, "mid": str, "sample": str, "clips": int, "yes": int, "no": int, "unsure": int, "unanswered": int,
    "events": float, "covered": float, "precision": float, "low": float, "high": float, "threshold": float,
    "threshold_events": float, "threshold_precision": float, "threshold_low": float, "threshold_high": float,
}  # fmt: skip


@lists(VerifyOptions)
def verify(sheet: str | Path, **options: Any) -> pd.DataFrame:
    """Estimate the precision of each class in a verification sheet, as `satpipe verify` does.

    >>> sheet = satpipe.clips("out", to="clips_to_judge", labels="Bird", threshold=0.2)
    >>> sheet["correct"] = "yes"  # what was heard in each clip
    >>> sheet.to_csv("judged.csv", index=False)
    >>> satpipe.verify("judged.csv")[["label", "events", "yes", "no", "precision", "low", "high"]]
      label  events  yes  no  precision  low  high
    0  Bird     1.0    1   0        1.0  1.0   1.0

    Args:
        sheet: Path or URL of a sheet of `satpipe clips` with answers.
        options: See below.

    Returns:
        A row for each class with the columns `label`, `mid`, `sample` (`stratified`, `top`, or `all` if every event was
        judged), `clips`, `yes`, `no`, `unsure`, `unanswered` (numbers of rows), `events` (that the answers stand for),
        `covered` (share of the events in strata with answers), `precision` with its interval `low` to `high`,
        `threshold` for the precision wanted (missing if there is none), and `threshold_events`, `threshold_precision`,
        `threshold_low` and `threshold_high` of the events that reach it.

    Raises:
        TruthError: The sheet cannot be read, is not one of `satpipe clips`, has invalid lines, or no answer.
        ConfigError: An option is invalid.
    """
    return table(verification(sheet, VerifyOptions(**options)))


def table(found: Verification) -> pd.DataFrame:
    """Return the figures as a data frame, see `verify`."""
    rows = []
    for each in found.classes:
        row = {name: getattr(each, name) for name in _TYPES if hasattr(each, name)}
        for estimate, prefix in ((each.found, ""), (each.above, "threshold_")):
            if estimate:
                row |= {f"{prefix}{name}": getattr(estimate, name) for name in ("precision", "low", "high", "events")}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def write_thresholds(found: Verification, options: VerifyOptions, place: str | Path) -> Path:
    """Write a file of thresholds, which events and other commands read with `--threshold`; return its location.

    Raises:
        TruthError: No class has a threshold.
        LabelError: A group is unknown.
        OutputError: The file cannot be written.
    """
    location = locate(place)
    write_text(location, json.dumps(thresholds_file(found, options), indent=2, ensure_ascii=False) + "\n")
    return location
