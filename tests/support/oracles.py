"""The libraries whose figures ours must equal, patched to run with current NumPy."""

from satpipe.jobs.evaluate.cross_check import load_psds_eval

PSDSEval, PSDSEvalError = load_psds_eval().PSDSEval, load_psds_eval().PSDSEvalError

__all__ = ["PSDSEval", "PSDSEvalError"]
