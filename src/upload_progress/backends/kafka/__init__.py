"""Sessions in a compacted topic of Kafka: ``pip install 'upload-progress[kafka]'``."""

from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.store import KafkaStatistics, KafkaStore

__all__ = [
    "KafkaAccess",
    "KafkaStatistics",
    "KafkaStore",
]
