"""Measurements of speed, memory and cost."""
