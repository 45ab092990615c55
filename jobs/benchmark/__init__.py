"""Measurements of speed, memory and cost, and of how well models tag."""
