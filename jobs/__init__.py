"""What a person starts: the command table and the jobs behind it."""
