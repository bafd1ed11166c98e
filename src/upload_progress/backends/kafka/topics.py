"""Topics of Kafka: how one is set up, and how one is made.

What a topic is for decides its settings; that they suit is checked by who uses it.
"""

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

__all__ = [
    "NewTopicSettings",
    "check_settings",
    "ensure_topics",
    "prepare_topic",
]

_ALREADY_EXISTS: Final = 36
_UNKNOWN_TOPIC: Final = 3
_CLOSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05

_SETTINGS: Final = ("cleanup.policy", "retention.ms")


@frozen
class NewTopicSettings:
    """How a topic is made that is not there."""

    partitions: int
    settings: Mapping[str, str]


async def ensure_topics(
    access: KafkaAccess, topics: Mapping[str, NewTopicSettings | None]
) -> dict[str, Mapping[str, str] | None]:
    """Return how each of *topics* is set up; None is not there.

    Args:
        access: How to connect.
        topics: Their names, and how one is made that is not there; None does not make it.
    """
    async with _administrator(access) as admin:
        found = await _settings(admin, list(topics))
        while missing := _missing(topics, found):
            await _create(admin, missing)
            # A broker may need a while to hear of what another has done.
            await anyio.sleep(_LOOK_SECONDS)
            found |= await _settings(admin, list(missing))
    return found


def _missing(
    topics: Mapping[str, NewTopicSettings | None], found: Mapping[str, object]
) -> dict[str, NewTopicSettings]:
    return {name: new for name, new in topics.items() if new is not None and found[name] is None}


@asynccontextmanager
async def _administrator(access: KafkaAccess) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = access.admin()
    try:
        await admin.start()
        yield admin
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await admin.close()


async def _settings(
    admin: AIOKafkaAdminClient, topics: list[str]
) -> dict[str, Mapping[str, str] | None]:
    wanted = dict.fromkeys(_SETTINGS)
    answers = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic, configs=wanted) for topic in topics]
    )
    return {
        resource["resource_name"]: _entries(resource)
        for answer in answers
        for resource in answer.to_object()["resources"]
    }


def _entries(resource: Mapping[str, object]) -> Mapping[str, str] | None:
    code, entries = resource["error_code"], resource["config_entries"]
    if code == _UNKNOWN_TOPIC:
        return None
    _check(code)
    assert isinstance(entries, list)  # noqa: S101  # so the protocol says
    return {each["config_names"]: each["config_value"] for each in entries}


async def _create(admin: AIOKafkaAdminClient, topics: Mapping[str, NewTopicSettings]) -> None:
    wanted = [
        NewTopic(name, new.partitions, 1, topic_configs=dict(new.settings))
        for name, new in topics.items()
    ]
    for new in wanted:
        # What the brokers are set to; the constructor refuses to be told so.
        new.replication_factor = -1
    answer = await admin.create_topics(wanted)
    # Another worker may have been first.
    for code in {found[1] for found in answer.topic_errors} - {_ALREADY_EXISTS}:
        _check(code)


def _check(code: object) -> None:
    if code:
        raise for_code(code)


# FROM stores.kafka.topic: The topic that a store lives in: whether it can, and how one is made that it can live in.


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
    new = (
        None if partitions is None else NewTopicSettings(partitions, {"cleanup.policy": "compact"})
    )
    found = await ensure_topics(access, {topic: new})
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
