"""How a live upload continues, follows or supersedes another upload of the same id.

The other one may be live in this process, or known by the records that other workers have stored.
"""
