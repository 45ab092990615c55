"""The libraries whose figures ours must equal, patched to run with current NumPy."""

import numpy as np
import psds_eval.psds
from psds_eval import PSDSEval, PSDSEvalError

__all__ = ["PSDSEval", "PSDSEvalError"]

# psds-eval 0.5.3 converts an array [1, 1] to a number with int(), which NumPy 2.4 rejects.
psds_eval.psds.int = lambda value: np.asarray(value).item()
