"""The requests of an upload: one transfer each, and what several of them have together."""
