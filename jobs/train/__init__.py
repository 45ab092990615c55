"""`satpipe prepare`, `psl`, `train` and `train-bundled`: training sets, teacher labels and training runs."""
