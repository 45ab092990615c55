"""When a recording started: from its name, its header, or a CSV file."""
