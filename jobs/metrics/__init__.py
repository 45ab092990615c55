"""Figures of merit, counted on arrays: what sed_eval, psds-eval and scikit-learn mean by them, without their loops."""
