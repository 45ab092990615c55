"""The card: what was evaluated, how, and the figures. Written, read, and compared with another."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.pipeline.storage import locate, written_whole
from satpipe.pipeline.tables.files import reading
from satpipe.sat.errors import ConfigError, OutputError

CARD, CLASSES, CURVES = "evaluate.json", "classes.csv", "curves.parquet"
EXAMPLES = 5  # names shown where there are many
EvaluationResult = dict[str, Any]

CONDITIONS = (
    "clips_found", "truth", "class_set", "class_set_sha256", "nan_rule", "threshold", "threshold_source", "thresholds",
    "segment_s", "collar_s", "offset_fraction", "median_filter", "min_s", "alpha_st", "alpha_ct", "dtc", "gtc", "cttc",
    "max_efpr",
)  # fmt: skip
"""What two figures must share to be compared. The number of classes averaged is a result: sed_eval's rule makes it
depend on what was found."""


def folders(folder: str | None, outs: tuple[str, ...]) -> list[Any]:
    """Where the card of each output folder goes: the folder itself if there is one, else one of its name below.

    Raises:
        ConfigError: Two output folders have the same name.
    """
    if folder is None or len(outs) == 1:
        return [folder] * len(outs)
    names = [locate(out).name for out in outs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two of the folders are called {twice[0]}: their cards would overwrite each other")
    return [locate(folder) / name for name in names]


def write(card: EvaluationResult, folder: str | Path) -> None:
    """Write a card, and its classes and curves as tables.

    Raises:
        OutputError: They cannot be written.
    """
    place = locate(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with written_whole(place / CARD) as path:
            plain = {key: value for key, value in card.items() if key != "curves"}
            path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with written_whole(place / CLASSES) as path:
            _frame(card["classes"]).to_csv(path, index=False)
        with written_whole(place / CURVES) as path:
            pq.write_table(card["curves"], path, compression="zstd")
    except OSError as error:
        raise OutputError(f"{place} cannot be written: {error.strerror or error}") from error


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)


def read(folder: str | Path) -> EvaluationResult:
    """Read the card of a folder that `write` wrote to, or a card itself.

    Raises:
        OutputError: There is none.
    """
    place = locate(folder)
    place = place if place.suffix == ".json" else place / CARD
    try:
        card: EvaluationResult = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{place} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(f"{place} is no card of `satpipe evaluate`: {error}") from error
    if not isinstance(card, dict) or not {"figures", "truth", "model"} <= card.keys():
        raise OutputError(f"{place} is no card of `satpipe evaluate`")
    return card


def read_curves(folder: str | Path) -> pa.Table:
    """Read the curves beside a card, as `satpipe.pipeline.tables.schemas.CURVES`.

    Raises:
        OutputError: There are none.
    """
    place = locate(folder)
    path = (place.parent if place.suffix == ".json" else place) / CURVES
    if not path.exists():
        raise OutputError(f"{path} is missing, the card's curves: evaluate again")
    with reading(path), path.open("rb") as file:
        return pq.read_table(file)


def compare(first: EvaluationResult, second: EvaluationResult) -> None:
    """Make sure that the figures of two cards mean the same.

    Raises:
        ConfigError: They do not; the reasons are named.
    """
    reasons = []
    for kind in sorted(first["truth"].keys() & second["truth"].keys()):
        one, other = first["truth"][kind], second["truth"][kind]
        if one["sha256"] != other["sha256"]:
            reasons.append(f"other {kind} labels: {one['file']} and {other['file']} differ")
        elif one["clips_sha256"] != other["clips_sha256"]:
            reasons.append(f"other clips: {one['found']:,} and {other['found']:,} of those in {one['file']} were found")
    right = {(figure["name"], figure["average"]): figure for figure in second["figures"]}
    shared = [
        (figure, right[key]) for figure in first["figures"] if (key := (figure["name"], figure["average"])) in right
    ]
    if not shared:
        reasons.append("they have no figure in common")
    differ: dict[str, None] = {}
    for one, other in shared:
        for key in one.keys() | other.keys():
            if key in CONDITIONS and one.get(key) != other.get(key):
                differ.setdefault(f"{key} of {one['name']}: {one.get(key)} and {other.get(key)}")
    reasons += list(differ)[:EXAMPLES]
    if reasons:
        raise ConfigError("the two cards cannot be compared:\n  " + "\n  ".join(reasons))
