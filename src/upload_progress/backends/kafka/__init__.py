"""Kafka: a store in a compacted topic, and a publisher. Extra: ``upload-progress[kafka]``."""

from upload_progress._runtime.optional import require

require("aiokafka", extra="kafka")

from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.kafka.store import KafkaStatistics, KafkaStore

__all__ = ["KafkaAccess", "KafkaPublisher", "KafkaStatistics", "KafkaStore"]
