"""Measurements of speed, memory, cost and quality."""
