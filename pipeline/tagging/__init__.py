"""Tagging recordings: spans, the work of one worker, and the run that schedules it."""
