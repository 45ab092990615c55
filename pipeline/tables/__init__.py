"""The tables of an output folder: schemas, writing and reading."""
