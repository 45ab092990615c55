"""One interface for every tagger: SAT and other models."""
