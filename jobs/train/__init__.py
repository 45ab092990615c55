"""`satpipe prepare`, `psl`, `train` and `train-bundled`: training sets, teachers' labels and training runs."""
