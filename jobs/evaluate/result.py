"""The result of an evaluation: written, read, and compared with another."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from satpipe.jobs.metrics.arrays import Floats
from satpipe.pipeline.storage import locate, written_whole
from satpipe.pipeline.tables.files import reading
from satpipe.sat.errors import ConfigError, OutputError

RESULT, CLASSES, CURVES, THRESHOLDS = "evaluate.json", "classes.csv", "curves.parquet", "thresholds.json"
SAMPLES = "bootstrap.parquet"
_SAMPLES = pa.schema({"name": pa.string(), "average": pa.string(), "values": pa.list_(pa.float64())})
EXAMPLES = 5  # names shown of a long list

CONDITIONS = (
    "clips_found", "truth", "class_set", "class_set_sha256", "nan_rule", "threshold", "threshold_source", "thresholds",
    "segment_s", "collar_s", "offset_fraction", "median_filter", "min_s", "alpha_st", "alpha_ct", "dtc", "gtc", "cttc",
    "max_efpr",
)  # fmt: skip
"""Keys that two figures must share to be comparable. The number of classes averaged is a result: by sed_eval's rule it
depends on what was detected."""

ROW_FIGURES = ("segment_mAP", "segment_auc", "segment_d_prime", "calibration_error")
"""Names of figures whose segments are rows of the tables, whatever `segment_s`."""


class EvaluationResult(TypedDict):
    """The result of `evaluate`: the content of `evaluate.json`, and the curves."""

    satpipe: str
    """Version of satpipe."""
    out: str
    """Output folder that was evaluated."""
    model: dict[str, Any]
    """Configuration and checksum of the model, and the settings of the run."""
    options: dict[str, Any]
    """The options of `evaluate`."""
    truth: dict[str, dict[str, Any]]
    """By kind, `weak` or `strong`: the file of the ground truth, and the numbers of clips and classes found."""
    notes: list[str]
    """Notes for readers of the figures."""
    figures: list[dict[str, Any]]
    """Each figure with its interval (`low`, `high`) and the conditions needed to compare it."""
    classes: list[dict[str, Any]]
    """The figures of each class: the rows of `classes.csv`."""
    curves: pa.Table
    """As `satpipe.pipeline.tables.schemas.CURVES`; not in `evaluate.json` but in `curves.parquet`."""
    samples: pa.Table
    """The figures of the bootstrap samples: `name`, `average`, `values`; not in `evaluate.json` but in
    `bootstrap.parquet`."""
    thresholds: NotRequired[dict[str, Any]]
    """The content of `thresholds.json`; only with `tune`."""
    cross_check: NotRequired[dict[str, Any]]
    """Figures of some clips by satpipe, sed_eval and psds-eval, and their largest difference; only with
    `cross_check`."""
    branches: NotRequired[dict[str, Any]]
    """Confusion between branches of the ontology; only with strong labels."""


def folders(folder: str | None, outs: tuple[str, ...]) -> list[Any]:
    """Return the folder for the result of each output folder: `folder`, or its subfolders if there are several.

    Raises:
        ConfigError: Two output folders have the same name.
    """
    if folder is None or len(outs) == 1:
        return [folder] * len(outs)
    names = [locate(out).name for out in outs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"two of the folders are called {twice[0]}: their results would overwrite each other")
    return [locate(folder) / name for name in names]


def write(result: EvaluationResult, folder: str | Path) -> None:
    """Write a result, with its classes and curves as tables.

    Raises:
        OutputError: The files cannot be written.
    """
    import pandas as pd  # slow to import

    place = locate(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with written_whole(place / RESULT) as path:
            plain = {key: value for key, value in result.items() if key not in ("curves", "samples", "thresholds")}
            path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with written_whole(place / CLASSES) as path:
            pd.DataFrame(result["classes"]).to_csv(path, index=False)
        if "thresholds" in result:
            with written_whole(place / THRESHOLDS) as path:
                path.write_text(json.dumps(result["thresholds"], indent=1) + "\n", encoding="utf-8")
        with written_whole(place / CURVES) as path:
            pq.write_table(result["curves"], path, compression="zstd")
        with written_whole(place / SAMPLES) as path:
            pq.write_table(result["samples"], path, compression="zstd")
    except OSError as error:
        raise OutputError(f"{place} cannot be written: {error.strerror or error}") from error


def read(folder: str | Path) -> EvaluationResult:
    """Read the result, without its curves, from a folder that `write` wrote to, or from its JSON file.

    Raises:
        OutputError: The file cannot be read or is not an evaluation result.
    """
    place = locate(folder)
    place = place if place.suffix == ".json" else place / RESULT
    try:
        result: EvaluationResult = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(f"{place} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(f"{place} is not a result of `satpipe evaluate`: {error}") from error
    if not isinstance(result, dict) or not {"figures", "truth", "model"} <= result.keys():
        raise OutputError(f"{place} is not a result of `satpipe evaluate`")
    return result


def read_curves(folder: str | Path) -> pa.Table:
    """Read the curves next to a result, as `satpipe.pipeline.tables.schemas.CURVES`.

    Raises:
        OutputError: The file is missing or cannot be read.
    """
    return _read_table(folder, CURVES)


def read_samples(folder: str | Path) -> pa.Table:
    """Read the figures of the bootstrap samples next to a result: `name`, `average`, `values`.

    Raises:
        OutputError: The file is missing or cannot be read.
    """
    return _read_table(folder, SAMPLES)


def samples_table(samples: Mapping[tuple[str, str], Floats]) -> pa.Table:
    """Return the figures of the bootstrap samples by name and average as a table."""
    rows = [{"name": name, "average": average, "values": each} for (name, average), each in samples.items()]
    return pa.Table.from_pylist(rows, _SAMPLES)


def _read_table(folder: str | Path, name: str) -> pa.Table:
    place = locate(folder)
    path = (place.parent if place.suffix == ".json" else place) / name
    if not path.exists():
        raise OutputError(f"{path} is missing: run `satpipe evaluate` again")
    with reading(path), path.open("rb") as file:
        return pq.read_table(file)


def shared(first: EvaluationResult, second: EvaluationResult) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the figures that two results have in common; `ROW_FIGURES` only if their rows are equally long."""
    left_out = () if first["model"].get("chunk_s") == second["model"].get("chunk_s") else ROW_FIGURES
    right = {(figure["name"], figure["average"]): figure for figure in second["figures"]}
    keys = ((figure, (figure["name"], figure["average"])) for figure in first["figures"])
    return [(figure, right[key]) for figure, key in keys if key in right and key[0] not in left_out]


def compare(first: EvaluationResult, second: EvaluationResult) -> None:
    """Make sure that the figures that two results have in common are comparable.

    Raises:
        ConfigError: They are not; the message gives the reasons.
    """
    reasons = []
    for kind in sorted(first["truth"].keys() & second["truth"].keys()):
        one, other = first["truth"][kind], second["truth"][kind]
        if one["sha256"] != other["sha256"]:
            reasons.append(f"different {kind} labels: {one['file']} and {other['file']}")
        elif one["clips_sha256"] != other["clips_sha256"]:
            reasons.append(f"different clips: {one['found']:,} and {other['found']:,} of {one['file']} were found")
    pairs = shared(first, second)
    if not pairs:
        reasons.append("they have no figure in common")
    differ: dict[tuple[str, Any, Any], list[str]] = {}
    for one, other in pairs:
        for key in CONDITIONS:
            if one.get(key) != other.get(key):
                differ.setdefault((key, one.get(key), other.get(key)), []).append(one["name"])
    for (key, left, right), names in [*differ.items()][:EXAMPLES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        reasons.append(f"{key} of {names[0]}{more}: {left} and {right}")
    if reasons:
        raise ConfigError("the two results cannot be compared:", *(f"  {reason}" for reason in reasons))
