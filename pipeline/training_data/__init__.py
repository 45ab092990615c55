"""Training data: clip listing, Parquet shards, teacher labels and batches."""
