"""A client of Redis as store and publisher want it: impatient, and silent about passwords."""

from typing import Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from upload_progress.exceptions import InvalidValue

__all__ = [
    "CALL_SECONDS",
    "checked_client",
    "open_client",
]


CALL_SECONDS: Final = 1.0


def open_client(url: str) -> Redis:
    """Return a client for *url*; nothing connects yet.

    Raises:
        InvalidValue: It is no URL of Redis, as redis-py takes them.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=CALL_SECONDS,
            socket_connect_timeout=CALL_SECONDS,
            # Whoever calls has patience and rests of his own.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise InvalidValue("url", "is no URL of Redis: redis://HOST:PORT/DATABASE") from None


def checked_client(client: Redis | RedisCluster) -> None:
    """Refuse a client that decodes.

    Raises:
        InvalidValue: It decodes responses: what is no UTF-8 would break it for everybody.
    """
    encoder = client.get_encoder()
    if encoder.decode_responses:
        raise InvalidValue("client", "must not decode responses: leave decode_responses out")
