"""Uploads that this process receives: admission, counting, reports, and reading their progress."""
