"""Clients of Redis for the store and the publisher: short timeouts and no retries."""

from collections.abc import Callable
from random import choice
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
from attrs import define, field
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException

from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.exceptions import InvalidValue

__all__ = [
    "CALL_SECONDS",
    "Client",
    "PubSubClient",
    "close_client",
    "is_pool_exhausted",
    "name_in_database",
    "no_retries",
    "open_client",
    "pubsub_clients_of",
    "validate_client",
]

Client = Redis | RedisCluster

CALL_SECONDS: Final = 1.0
"""Timeout of connecting, and of each read and write."""
_POOL_EXHAUSTED: Final = frozenset({"Too many connections", "No connection available."})


_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
"""The schemes of URLs, and those that redis-py knows."""
_SENTINEL_SCHEMES: Final = {
    f"{scheme}+sentinel": tls
    for scheme, tls in (("redis", False), ("rediss", True), ("valkey", False), ("valkeys", True))
}
"""The schemes of URLs of Sentinels, and whether connections use TLS."""
_SENTINEL_PORT: Final = 26379
_CLUSTER_SCHEMES: Final = {
    "redis+cluster": "redis",
    "rediss+cluster": "rediss",
    "valkey+cluster": "redis",
    "valkeys+cluster": "rediss",
}
"""The schemes of URLs of clusters, and those that redis-py knows."""
_EXPECTED: Final = (
    "is not a valid Redis URL: expected redis://HOST:PORT/DATABASE, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE, or redis+cluster://HOST:PORT"
)


def open_client(url: str) -> Client:
    """Return a client for *url*; it connects when it is first used.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py accepts it; or
            ``valkey://`` or ``valkeys://``, which mean the same; or the Sentinels of a service:
            ``redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE[/DATABASE]``. The
            password is that of the service; ``?sentinel_username=`` and ``?sentinel_password=``
            log in to the Sentinels. ``redis+cluster://HOST:PORT`` is any node of a cluster.

    Raises:
        InvalidValue: The URL is not valid. The message does not contain it, as it may hold a
            password.
    """
    scheme, separator, rest = url.partition(":")
    try:
        if scheme in _SENTINEL_SCHEMES:
            return _open_sentinels(url, uses_tls=_SENTINEL_SCHEMES[scheme])
        if scheme in _CLUSTER_SCHEMES:
            return RedisCluster.from_url(
                _CLUSTER_SCHEMES[scheme] + separator + rest,
                socket_timeout=CALL_SECONDS,
                socket_connect_timeout=CALL_SECONDS,
            )
        return Redis.from_url(
            _SCHEMES.get(scheme, scheme) + separator + rest,
            socket_timeout=CALL_SECONDS,
            socket_connect_timeout=CALL_SECONDS,
            # The circuit breaker of the caller decides when to try again.
            retry=no_retries(),
        )
    except (ValueError, RedisClusterException):
        raise InvalidValue("url", _EXPECTED) from None


def no_retries() -> Retry:
    """Return the setting that a call is made once: the caller decides when to try again."""
    return Retry(NoBackoff(), 0)


def _open_sentinels(url: str, *, uses_tls: bool) -> Redis:
    """Return a client for the primary that the Sentinels of *url* name.

    Raises:
        ValueError: The URL is not valid.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    query = dict(parse_qsl(parts.query))
    if not service:
        raise ValueError
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no annotation here
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={
            "username": query.get("sentinel_username"),
            "password": query.get("sentinel_password"),
            "ssl": uses_tls,
            "socket_timeout": CALL_SECONDS,
            "socket_connect_timeout": CALL_SECONDS,
            "retry": no_retries(),
        },
    )
    client: Redis = sentinels.master_for(
        unquote(service),
        db=int(database or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        ssl=uses_tls,
        socket_timeout=CALL_SECONDS,
        socket_connect_timeout=CALL_SECONDS,
        retry=no_retries(),
    )
    return client


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if parts.hostname is None:
        raise ValueError
    return parts.hostname, parts.port or _SENTINEL_PORT


async def close_client(client: Client) -> None:
    """Close *client*, which ``open_client`` has returned."""
    pool = None if isinstance(client, RedisCluster) else client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()
    await client.aclose()


def pubsub_clients_of(
    client: Client, reopen: Callable[[], Client] | None
) -> LoopBound["PubSubClient"] | BorrowedClient["PubSubClient"]:
    """Return the clients for publish/subscribe of all event loops.

    They are made by *reopen*, or are *client*, which stays open.
    """
    if reopen is None:
        return BorrowedClient("client", PubSubClient(client), PubSubClient.discard)

    async def close(pubsub: PubSubClient) -> None:
        await pubsub.discard()
        await close_client(pubsub.client)

    return LoopBound(lambda: PubSubClient(reopen()), close)


@define(eq=False, repr=False)
class PubSubClient:
    """The client for publish/subscribe: of a cluster, that of one node, which informs all others.

    Args:
        client: A client of a server or of a cluster.
    """

    client: Client
    _node: Redis | None = field(default=None, init=False)

    async def get(self) -> Redis:
        """Return the client; of a cluster, always the same one until ``discard`` is called."""
        if not isinstance(self.client, RedisCluster):
            return self.client
        if self._node is None:
            await self.client.initialize()
            node = choice(self.client.get_nodes())  # noqa: S311  # no secret
            pool = ConnectionPool(connection_class=node.connection_class, **node.connection_kwargs)
            self._node = Redis.from_pool(pool)
        return self._node

    async def discard(self) -> None:
        """Close the connections to the node: the next call takes another one."""
        node, self._node = self._node, None
        if node is not None:
            with anyio.move_on_after(CALL_SECONDS, shield=True):
                await node.aclose()


def validate_client(client: Client) -> None:
    """Check that *client* returns bytes.

    Raises:
        InvalidValue: It has ``decode_responses``: a value that is not UTF-8 would raise an error
            in every call that reads it.
    """
    encoder = client.get_encoder()
    if encoder.decode_responses:
        raise InvalidValue("client", "must not decode responses: leave decode_responses out")


def name_in_database(name: str, client: Client) -> str:
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
