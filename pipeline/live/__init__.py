"""Live audio: sources, resampling and tagging as samples arrive."""
