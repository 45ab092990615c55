"""`satpipe evaluate`: score tables against true labels; what is found becomes a card."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from satpipe.jobs.evaluate.curves import Curves
from satpipe.jobs.evaluate.result import EvaluationResult, compare, folders, read, read_curves, write
from satpipe.jobs.evaluate.strong_figures import StrongEvaluator
from satpipe.jobs.evaluate.weak_figures import WeakEvaluator
from satpipe.jobs.options.results import EvaluateOptions
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.sat.errors import ConfigError

__all__ = ["EvaluateOptions", "compare", "evaluate", "folders", "read", "read_curves", "write"]


def evaluate(out: str | Path, options: EvaluateOptions) -> EvaluationResult:
    """Score the tables of an output folder.

    Returns:
        What was evaluated, how, and the figures; see the README for its keys.

    Raises:
        ConfigError: Options that contradict one another.
        OutputError: The folder has no tables that can be scored.
        TruthError: True labels that cannot be read, or belong to no recording.
        LabelError: They have labels that satpipe does not know.
    """
    if not (options.weak or options.strong):
        raise ConfigError("there is nothing to compare with: give --weak, --strong or both")
    if options.median_filter < 1 or options.median_filter % 2 == 0:
        raise ConfigError(f"--median-filter is {options.median_filter}: it takes an odd number of chunks")
    tables = Tables(out)
    card: EvaluationResult = {
        "satpipe": version("satpipe"),
        "out": str(out),
        "model": tables.model,
        "options": {name: value if value is None else _plain(value) for name, value in asdict(options).items()},
        "truth": {},
        "notes": list(tables.notes),
        "figures": [],
        "classes": [],
        "curves": Curves(),
    }
    if options.weak:
        WeakEvaluator(tables, options, card).evaluate(options.weak)
    if options.strong:
        StrongEvaluator(tables, options, card).evaluate(options.strong)
    card["curves"] = card["curves"].table()
    return card


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)
