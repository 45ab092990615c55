"""Tables to text. Computes nothing that a job should have written down."""
