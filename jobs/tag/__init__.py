"""`satpipe tag`: recordings in, tables out."""
