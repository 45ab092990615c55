"""`satpipe evaluate` compares score tables with ground truth and returns an `EvaluationResult`."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from satpipe.jobs.evaluate.curves import Curves
from satpipe.jobs.evaluate.paired import Paired, paired
from satpipe.jobs.evaluate.result import (
    EvaluationResult,
    compare,
    folders,
    read,
    read_curves,
    read_samples,
    samples_table,
    write,
)
from satpipe.jobs.evaluate.strong_figures import StrongEvaluator
from satpipe.jobs.evaluate.weak_figures import WeakEvaluator
from satpipe.jobs.ground_truth.audioset import labels_file
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.options.results import AUDIOSET, EvaluateOptions
from satpipe.pipeline.option import takes
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.sat.errors import TruthError

__all__ = [
    "EvaluateOptions", "EvaluationResult", "Paired", "compare", "evaluate", "folders", "paired", "read", "read_curves",
    "read_samples", "write",
]  # fmt: skip


@takes(EvaluateOptions)
def evaluate(out: str | Path, options: EvaluateOptions) -> EvaluationResult:
    """Compare the tables of an output folder with ground truth, as `satpipe evaluate` does.

    `weak=True` and `strong=True` mean AudioSet's own labels of its evaluation set. Without either, those of them are
    used that fit the names of the recordings.

    >>> result = satpipe.evaluate("out", strong="strong.tsv", classes="527", bootstrap=0)
    >>> [(each["average"], each["value"]) for each in result["figures"] if each["name"] == "segment_f1"][:2]
    [('micro', 1.0), ('macro', 1.0)]

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
        "samples": samples_table({}),
    }
    samples: dict[tuple[str, str], Floats] = {}
    either = not (options.weak or options.strong)  # AudioSet's, those that fit
    for kind, evaluator in (("weak", WeakEvaluator), ("strong", StrongEvaluator)):
        given = AUDIOSET if either else getattr(options, kind)
        if given:
            try:
                path = labels_file(kind, given, tables.run.get("inputs", ()))
                one = evaluator(tables, options, result, curves)
                one.evaluate(path)
                samples |= one.samples
            except TruthError as error:
                if kind == "weak" or not either:
                    raise
                result["truth"].pop(kind, None)
                result["notes"].append(f"no strong labels were evaluated: {error}")
    result["curves"], result["samples"] = curves.table(), samples_table(samples)
    return result
