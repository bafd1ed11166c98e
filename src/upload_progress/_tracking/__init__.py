"""Uploads that this process receives: admission, counting, and how they continue."""
