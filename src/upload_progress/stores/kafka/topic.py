"""The topic that a store lives in: whether it can, and how one is made that it can live in."""

from collections.abc import Mapping

from upload_progress.errors import InvalidValue
from upload_progress.kafka_access import KafkaAccess
from upload_progress.kafka_topics import NewSettings, settings_of
from upload_progress.memory import Retention

__all__ = ["check_settings", "prepare_topic"]


async def prepare_topic(
    access: KafkaAccess, topic: str, retention: Retention, *, partitions: int | None
) -> None:
    """See to it that *topic* can hold records, and create it if that is wished.

    Args:
        access: How to connect.
        topic: Its name.
        retention: How long records are kept.
        partitions: How many it gets if it is not there; None does not create it.

    Raises:
        InvalidValue: It is not there, or would lose records.
    """
    new = None if partitions is None else NewSettings(partitions, {"cleanup.policy": "compact"})
    found = await settings_of(access, {topic: new})
    check_settings(topic, found[topic], retention)


def check_settings(topic: str, settings: Mapping[str, str] | None, retention: Retention) -> None:
    """Refuse a topic that would lose records, or that is not there.

    Raises:
        InvalidValue: Says how to put it right.
    """
    where = f"topic {topic!r}"
    if settings is None:
        raise InvalidValue(
            where,
            "is not there; create it: kafka-topics.sh --create --config cleanup.policy=compact "
            f"--topic {topic} --bootstrap-server …",
        )
    policies = settings["cleanup.policy"].split(",")
    if "compact" not in policies:
        raise InvalidValue(
            where,
            f"has cleanup.policy={settings['cleanup.policy']} and would lose records; set compact: "
            "kafka-configs.sh --alter --add-config cleanup.policy=compact "
            f"--topic {topic} --bootstrap-server …",
        )
    kept_seconds = int(settings["retention.ms"]) / 1000
    needed_seconds = retention.waiting_seconds + retention.ended_seconds
    if "delete" in policies and 0 <= kept_seconds < needed_seconds:
        raise InvalidValue(
            where,
            f"deletes records after {kept_seconds:.0f} s, sooner than their {needed_seconds:.0f} s "
            "are over; set cleanup.policy=compact, or a longer retention.ms",
        )
