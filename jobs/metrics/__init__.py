"""Metrics computed on arrays; they equal those of sed_eval, psds-eval and scikit-learn."""
