"""Recordings: finding, probing, decoding and joining files."""
