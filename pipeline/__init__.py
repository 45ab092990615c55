"""Recordings to tables: finding, decoding, cutting, tagging a unit of work, the Ray layer, the output folder."""
