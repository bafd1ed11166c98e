"""Queries: snapshots and lists of uploads, from this process and from the store."""
