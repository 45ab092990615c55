"""`satpipe prepare`, `psl` and `train`: training sets, teacher labels and training runs."""
