"""Results as text, tables, pictures and pages; `satpipe.jobs` does all computing."""
