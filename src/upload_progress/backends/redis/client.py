"""Clients of Redis for the store and the publisher: short timeouts and no retries."""

from typing import Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from upload_progress.exceptions import InvalidValue

__all__ = [
    "CALL_SECONDS",
    "is_pool_exhausted",
    "name_in_database",
    "open_client",
    "validate_client",
]


CALL_SECONDS: Final = 1.0
"""Timeout of connecting, and of each read and write."""
_POOL_EXHAUSTED: Final = frozenset({"Too many connections", "No connection available."})


def open_client(url: str) -> Redis:
    """Return a client for *url*; it connects when it is first used.

    Raises:
        InvalidValue: redis-py does not accept the URL. The message does not contain it, as it may
            hold a password.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=CALL_SECONDS,
            socket_connect_timeout=CALL_SECONDS,
            # The circuit breaker of the caller decides when to try again.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise InvalidValue(
            "url", "is not a valid Redis URL: expected redis://HOST:PORT/DATABASE"
        ) from None


def validate_client(client: Redis | RedisCluster) -> None:
    """Check that *client* returns bytes.

    Raises:
        InvalidValue: It has ``decode_responses``: a value that is not UTF-8 would raise an error
            in every call that reads it.
    """
    encoder = client.get_encoder()
    if encoder.decode_responses:
        raise InvalidValue("client", "must not decode responses: leave decode_responses out")


def name_in_database(name: str, client: Redis | RedisCluster) -> str:
    """Return *name*, followed by the number of the client's database unless that is 0.

    Publish/subscribe knows no databases: the channels of two databases must have different names.
    """
    pool = None if isinstance(client, RedisCluster) else client.connection_pool
    number = pool.connection_kwargs.get("db") if pool else 0
    return f"{name}.{number}" if number else name


def is_pool_exhausted(error: RedisConnectionError) -> bool:
    """Tell whether *error* means that all connections of the client are in use.

    redis-py 5 and 6 raise the same class for a connection that is lost.
    """
    return str(error) in _POOL_EXHAUSTED
