"""`satpipe evaluate` compares score tables with ground truth and returns an `EvaluationResult`."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from satpipe.jobs.evaluate.curves import Curves
from satpipe.jobs.evaluate.result import EvaluationResult, compare, folders, read, read_curves, write
from satpipe.jobs.evaluate.strong_figures import StrongEvaluator
from satpipe.jobs.evaluate.weak_figures import WeakEvaluator
from satpipe.jobs.options.results import EvaluateOptions
from satpipe.pipeline.option import takes
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.sat.errors import ConfigError

__all__ = ["EvaluateOptions", "EvaluationResult", "compare", "evaluate", "folders", "read", "read_curves", "write"]


@takes(EvaluateOptions)
def evaluate(out: str | Path, options: EvaluateOptions) -> EvaluationResult:
    """Compare the tables of an output folder with ground truth, as `satpipe evaluate` does.

    >>> result = satpipe.evaluate("out", strong="strong.tsv", classes="527", bootstrap=0)
    >>> [(figure["name"], figure["average"], figure["value"]) for figure in result["figures"]][:2]
    [('segment_f1', 'micro', 1.0), ('segment_f1', 'macro', 1.0)]

    Args:
        out: Output folder of `satpipe tag`, path or URL.
        options: Given as keyword arguments.

    Returns:
        The data evaluated, the conditions and the figures.

    Raises:
        ConfigError: Options are invalid or contradict one another.
        OutputError: The folder has no tables that can be scored.
        TruthError: The ground truth cannot be read, or belongs to no recording.
        LabelError: The ground truth has labels that satpipe does not know.
    """
    if not (options.weak or options.strong):
        raise ConfigError("no ground truth to compare with: give --weak, --strong or both")
    if options.median_filter < 1 or options.median_filter % 2 == 0:
        raise ConfigError(f"--median-filter must be an odd number of chunks, not {options.median_filter}")
    tables, curves = Tables(out), Curves()
    result: EvaluationResult = {
        "satpipe": version("satpipe"),
        "out": str(out),
        "model": tables.model,
        "options": {
            name: value if isinstance(value, int | float | None) else str(value)
            for name, value in asdict(options).items()
        },
        "truth": {},
        "notes": list(tables.notes),
        "figures": [],
        "classes": [],
        "curves": curves.table(),
    }
    if options.weak:
        WeakEvaluator(tables, options, result, curves).evaluate(options.weak)
    if options.strong:
        StrongEvaluator(tables, options, result, curves).evaluate(options.strong)
    result["curves"] = curves.table()
    return result
