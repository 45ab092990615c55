"""Checkpoints: reading, writing, downloading and resolving model names."""
