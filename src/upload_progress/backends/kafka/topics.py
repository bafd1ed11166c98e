"""Settings of topics: reads them, creates missing topics, and checks the topic of the store."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from attrs import frozen

from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue

__all__ = ["STORE_SETTINGS", "NewTopicSettings", "check_settings", "ensure_topics", "prepare_topic"]

_ALREADY_EXISTS: Final = 36
_UNKNOWN_TOPIC: Final = 3
_CLOSE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05

_SETTINGS: Final = ("cleanup.policy", "retention.ms", "max.compaction.lag.ms", "segment.bytes")

STORE_SETTINGS: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": f"{4 * 1024 * 1024}",
    "min.cleanable.dirty.ratio": "0.2",
    "max.compaction.lag.ms": "300000",
    "delete.retention.ms": "3600000",
    "message.timestamp.type": "LogAppendTime",
}
"""Settings of the store's topic. A worker that starts reads the whole topic: these keep it small.

Kafka never compacts the newest segment of a partition. By default it has 1 GiB, a partition is
compacted when half of it is old, and messages that delete a key are kept for a day. And by default
it refuses the messages of a worker whose clock is an hour ahead: with these, its own clock counts.
"""
_MAX_LAG_SECONDS: Final = 3600.0
_MAX_SEGMENT_BYTES: Final = 64 * 1024 * 1024


@frozen
class NewTopicSettings:
    """Settings with which a missing topic is created.

    Attributes:
        partitions: Number of partitions.
        settings: Configuration of the topic, such as ``cleanup.policy``.
    """

    partitions: int
    settings: Mapping[str, str]


async def ensure_topics(
    access: KafkaAccess, topics: Mapping[str, NewTopicSettings | None]
) -> dict[str, Mapping[str, str] | None]:
    """Create missing topics, and return the settings of each; None if it does not exist.

    Args:
        access: How to connect.
        topics: Names, and the settings with which a missing topic is created; None does not
            create it.
    """
    async with _admin_client(access) as admin:
        found = await _read_settings(admin, list(topics))
        while missing := _missing(topics, found):
            await _create(admin, missing)
            # Another broker than the one that created a topic may not know it yet.
            await anyio.sleep(_POLL_SECONDS)
            found |= await _read_settings(admin, list(missing))
    return found


def _missing(
    topics: Mapping[str, NewTopicSettings | None], found: Mapping[str, object]
) -> dict[str, NewTopicSettings]:
    return {name: new for name, new in topics.items() if new is not None and found[name] is None}


@asynccontextmanager
async def _admin_client(access: KafkaAccess) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = access.admin()
    try:
        await admin.start()
        yield admin
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await admin.close()


async def _read_settings(
    admin: AIOKafkaAdminClient, topics: list[str]
) -> dict[str, Mapping[str, str] | None]:
    configs = dict.fromkeys(_SETTINGS)
    responses = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs) for topic in topics]
    )
    return {
        resource["resource_name"]: _parse_entries(resource)
        for response in responses
        for resource in response.to_object()["resources"]
    }


def _parse_entries(resource: Mapping[str, object]) -> Mapping[str, str] | None:
    code, entries = resource["error_code"], resource["config_entries"]
    if code == _UNKNOWN_TOPIC:
        return None
    _raise_for(code)
    assert isinstance(entries, list)  # noqa: S101  # as the protocol defines it
    return {each["config_names"]: each["config_value"] for each in entries}


async def _create(admin: AIOKafkaAdminClient, topics: Mapping[str, NewTopicSettings]) -> None:
    new_topics = [
        NewTopic(name, new.partitions, 1, topic_configs=dict(new.settings))
        for name, new in topics.items()
    ]
    for new in new_topics:
        # The default of the brokers, which the constructor does not accept.
        new.replication_factor = -1
    response = await admin.create_topics(new_topics)
    # Another worker may have created it meanwhile.
    for code in {error[1] for error in response.topic_errors} - {_ALREADY_EXISTS}:
        _raise_for(code)


def _raise_for(code: object) -> None:
    if code:
        raise for_code(code)


async def prepare_topic(
    access: KafkaAccess, topic: str, retention: Retention, *, partitions: int | None
) -> str | None:
    """Check that *topic* keeps records, and create it if it does not exist.

    Returns:
        Why workers start slowly with it, and the command that corrects it; None if they do not.

    Args:
        access: How to connect.
        topic: Name of the topic.
        retention: How long records are kept.
        partitions: Number of partitions with which it is created; None does not create it.

    Raises:
        InvalidValue: The topic does not exist, or would lose records.
    """
    new = None if partitions is None else NewTopicSettings(partitions, STORE_SETTINGS)
    found = await ensure_topics(access, {topic: new})
    return check_settings(topic, found[topic], retention)


def check_settings(
    topic: str, settings: Mapping[str, str] | None, retention: Retention
) -> str | None:
    """Check that a topic with *settings* keeps records as long as *retention* demands.

    Returns:
        Why workers start slowly with it, and the command that corrects it; None if they do not.

    Raises:
        InvalidValue: The topic does not exist, or would lose records. The message contains the
            command that corrects it.
    """
    where = f"topic {topic!r}"
    if settings is None:
        raise InvalidValue(
            where,
            "does not exist; create it: kafka-topics.sh --create --config cleanup.policy=compact "
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
            f"deletes records after {kept_seconds:.0f} s; they are needed for "
            f"{needed_seconds:.0f} s: set cleanup.policy=compact, or a longer retention.ms",
        )
    lag_seconds = int(settings["max.compaction.lag.ms"]) / 1000
    if lag_seconds <= _MAX_LAG_SECONDS and int(settings["segment.bytes"]) <= _MAX_SEGMENT_BYTES:
        return None
    wanted = ",".join(f"{name}={value}" for name, value in STORE_SETTINGS.items())
    return (
        f"{where} is compacted late; set small segments: kafka-configs.sh --alter "
        f"--add-config {wanted} --topic {topic} --bootstrap-server …"
    )
