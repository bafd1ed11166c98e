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

from upload_progress.kafka_access import KafkaAccess

__all__ = ["NewSettings", "settings_of"]

_ALREADY_EXISTS: Final = 36
_UNKNOWN_TOPIC: Final = 3
_CLOSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05

_SETTINGS: Final = ("cleanup.policy", "retention.ms")


@frozen
class NewSettings:
    """How a topic is made that is not there."""

    partitions: int
    settings: Mapping[str, str]


async def settings_of(
    access: KafkaAccess, topics: Mapping[str, NewSettings | None]
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
    topics: Mapping[str, NewSettings | None], found: Mapping[str, object]
) -> dict[str, NewSettings]:
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


async def _create(admin: AIOKafkaAdminClient, topics: Mapping[str, NewSettings]) -> None:
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
