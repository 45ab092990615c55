"""Results as text, tables, pictures and pages; everything that needs computing is done by `satpipe.jobs`."""
