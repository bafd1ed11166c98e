"""Where events go."""

from upload_progress.publishers.memory import MemoryPublisher

__all__ = ["MemoryPublisher"]
