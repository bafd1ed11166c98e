"""Where sessions are kept. A process on its own needs none but ``MemoryStore``."""

from upload_progress.memory import MemoryStore, Retention

__all__ = ["MemoryStore", "Retention"]
