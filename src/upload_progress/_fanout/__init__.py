"""In-process publish and subscribe: snapshots are delivered to sockets, streams and ``watch()``."""
