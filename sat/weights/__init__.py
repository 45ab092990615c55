"""Checkpoints, downloads, and models by name."""
