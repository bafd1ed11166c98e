"""Redis and Valkey: a store, and a publisher over pub/sub. Extra: ``upload-progress[redis]``."""

from upload_progress._runtime.optional import require

require("redis", extra="redis")

from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.redis.store import RedisStore

__all__ = ["RedisPublisher", "RedisStore"]
