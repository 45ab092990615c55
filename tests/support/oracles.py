"""The libraries whose figures ours must equal, made to run beside today's NumPy."""

import numpy as np
import psds_eval.psds
from psds_eval import PSDSEval, PSDSEvalError

__all__ = ["PSDSEval", "PSDSEvalError"]

# psds-eval 0.5.3 makes a number of an array [1, 1], which NumPy 2.4 refuses.
psds_eval.psds.int = lambda value: np.asarray(value).item()
