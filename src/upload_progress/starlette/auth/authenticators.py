"""Authenticators: ready-made callables for ``authenticate=``.

Each maps a ``Connection`` to an ``Identity`` or None, for the middleware and the routes alike.
A verifier that compares a secret with ``==`` reveals its beginning by the time it takes: compare
with ``hmac.compare_digest``, or by a password hash. A plain verifier runs on the event loop, so
a verifier that queries a database or computes a slow hash must be async.

Sources: RFC 6750 (bearer), RFC 7617 (basic), RFC 9110 section 11 (challenges).
"""

import binascii
import inspect
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

from attrs import field, frozen

from upload_progress.connection import Connection
from upload_progress.identity import CapabilityIdentity, Identity
from upload_progress.interfaces import Authenticate

__all__ = [
    "VerifierResult",
    "basic",
    "bearer",
    "bearer_token",
    "capability",
    "challenges_of",
    "client_address",
    "first_of",
    "user_identity",
]

VerifierResult = Identity | str | None
"""The result of a verifier: an identity, the name of the user, or None for invalid credentials."""

_DEFAULT_CHALLENGE: Final = "Bearer"


def user_identity(connection: Connection) -> Identity | None:
    """Return the user that Starlette's ``AuthenticationMiddleware`` has authenticated.

    The owner of uploads is ``request.user.identity``. A stream or WebSocket of a user who logs
    out stays open until it is reopened.

    Example:
        ::

            mount = progress_mount(tracker, authenticate=user_identity)
    """
    user = connection.scope.get("user")
    if user is None or not user.is_authenticated:
        return None
    return Identity(user.identity)


def bearer_token(connection: Connection) -> str:
    """Return the token of ``Authorization: Bearer``, or an empty string."""
    return _credentials(connection, "bearer")


def bearer(verify: Callable[[str], VerifierResult | Awaitable[VerifierResult]]) -> Authenticate:
    """Return an authenticator for the token of ``Authorization: Bearer``.

    Example:
        ::

            authenticate = bearer({"secret-token": "alice"}.get)
            mount = progress_mount(tracker, authenticate=authenticate)

    Args:
        verify: Returns the user of a token, or None if the token is not valid; plain or async.

    Returns:
        A callable for ``authenticate=``.
    """

    def authenticate(connection: Connection) -> VerifierResult | Awaitable[VerifierResult]:
        token = bearer_token(connection)
        return verify(token) if token else None

    return _Authenticator(authenticate, ('Bearer realm="upload-progress"',))


def basic(
    verify: Callable[[str, str], VerifierResult | bool | Awaitable[VerifierResult | bool]],
) -> Authenticate:
    """Return an authenticator for the user name and password of ``Authorization: Basic``.

    Example:
        ::

            import hmac


            def check(name: str, password: str) -> bool:
                return name == "alice" and hmac.compare_digest(password, "wonderland")


            mount = progress_mount(tracker, authenticate=basic(check))

    Args:
        verify: Returns the user, True for the user of that name, or None or False if the
            password is wrong; plain or async.

    Returns:
        A callable for ``authenticate=``.
    """

    async def wait(name: str, result: Awaitable[VerifierResult | bool]) -> VerifierResult:
        return _user_of(name, await result)

    def authenticate(connection: Connection) -> VerifierResult | Awaitable[VerifierResult]:
        name, colon, password = _decode(_credentials(connection, "basic")).partition(":")
        if not colon:
            return None
        result = verify(name, password)
        return wait(name, result) if inspect.isawaitable(result) else _user_of(name, result)

    return _Authenticator(authenticate, ('Basic realm="upload-progress", charset="UTF-8"',))


def client_address(connection: Connection) -> str:
    """Return the address of the client, as the server reports it; empty if there is none.

    Of an IPv6 address it is the first half, which identifies the network of the client (RFC 4291,
    section 2.5.4): a client may have any number of addresses in it.

    Behind a proxy it is that of the proxy, unless the server reads the headers of the proxy:
    ``uvicorn --proxy-headers --forwarded-allow-ips=…``, or the like of another server. A header
    is never read here, because a client can send any header.
    """
    client = connection.scope.get("client")
    text = str(client[0] or "") if client else ""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv4Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), 64), strict=False).network_address)


def capability(*, client: Callable[[Connection], str] = client_address) -> Authenticate:
    """Return an authenticator without users: an unguessable id gives access to its upload.

    Only ids that can hold 120 random bits are accepted, and uploads cannot be listed. Limits
    count by client.

    Example:
        ::

            mount = progress_mount(tracker, authenticate=capability())

        Behind a proxy that sets a header itself, and removes it from requests::

            def client_of(connection: Connection) -> str:
                return connection.header("x-real-ip") or ""


            mount = progress_mount(tracker, authenticate=capability(client=client_of))

    Args:
        client: Returns what limits count by. By default it is the address that the server
            reports: behind a proxy, configure the server so that it is that of the client.

    Returns:
        A callable for ``authenticate=``.
    """
    return _Authenticator(lambda connection: CapabilityIdentity(client=client(connection)), ())


def first_of(*authenticators: Authenticate) -> Authenticate:
    """Return an authenticator that tries several; the first identity found is the result.

    Example:
        ::

            by_token = bearer({"secret-token": "alice"}.get)
            mount = progress_mount(tracker, authenticate=first_of(by_token, capability()))

    Args:
        authenticators: The authenticators, in the order in which they are tried.

    Returns:
        A callable for ``authenticate=``; its result is awaitable only if one of theirs is.
    """

    async def wait(
        first: Awaitable[VerifierResult], rest: list[Authenticate], connection: Connection
    ) -> VerifierResult:
        identity = await first
        if identity is not None:
            return identity
        result = try_each(rest, connection)
        return await result if inspect.isawaitable(result) else result

    def try_each(
        candidates: list[Authenticate], connection: Connection
    ) -> VerifierResult | Awaitable[VerifierResult]:
        for number, candidate in enumerate(candidates, 1):
            result = candidate(connection)
            if inspect.isawaitable(result):
                return wait(result, candidates[number:], connection)
            if result is not None:
                return result
        return None

    challenges = dict.fromkeys(each for one in authenticators for each in challenges_of(one, ()))
    return _Authenticator(
        lambda connection: try_each(list(authenticators), connection), tuple(challenges)
    )


def challenges_of(
    authenticate: Authenticate, default: tuple[str, ...] = (_DEFAULT_CHALLENGE,)
) -> tuple[str, ...]:
    """Return the challenges for ``WWW-Authenticate``: the schemes that *authenticate* accepts."""
    if isinstance(authenticate, _Authenticator) and authenticate.challenges:
        return authenticate.challenges
    return default


@frozen
class _Authenticator:
    authenticate: Callable[[Connection], VerifierResult | Awaitable[VerifierResult]] = field(
        repr=False
    )
    challenges: tuple[str, ...]

    def __call__(self, connection: Connection) -> Identity | Awaitable[Identity | None] | None:
        result = self.authenticate(connection)
        return _wait_for(result) if inspect.isawaitable(result) else _identity(result)


async def _wait_for(result: Awaitable[VerifierResult]) -> Identity | None:
    return _identity(await result)


def _identity(result: VerifierResult) -> Identity | None:
    return Identity(result) if isinstance(result, str) else result


def _user_of(name: str, result: VerifierResult | bool) -> VerifierResult:
    if isinstance(result, bool):
        return name if result else None
    return result


def _credentials(connection: Connection, scheme: str) -> str:
    """Return the credentials of the only ``Authorization`` header, or an empty string."""
    headers = connection.headers("authorization")
    if len(headers) != 1:
        return ""
    found, _, credentials = headers[0].partition(" ")
    return credentials.strip() if found.lower() == scheme else ""


def _decode(credentials: str) -> str:
    try:
        return binascii.a2b_base64(credentials.encode("latin-1"), strict_mode=True).decode()
    except ValueError:
        return ""
