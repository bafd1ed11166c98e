"""The authenticators for ``authenticate=``, with valid, malformed and random headers."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import SimpleUser, UnauthenticatedUser

from tests._support.asgi_client import http_scope
from upload_progress import Identity
from upload_progress.connection import Connection
from upload_progress.identity import CapabilityIdentity, identity_from
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import basic, bearer, capability, first_of, user_identity
from upload_progress.starlette.auth.authenticators import challenges_of

pytestmark = pytest.mark.anyio

V = TypeVar("V")


def with_authorization(*values: str) -> Connection:
    scope = http_scope("/")
    scope["headers"] += [(b"authorization", value.encode("latin-1")) for value in values]
    return Connection(scope)


def encoded(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode()
    return f"Basic {base64.b64encode(raw).decode()}"


async def resolve(authenticate: Authenticate, connection: Connection) -> Identity | None:
    answer = authenticate(connection)
    return identity_from(await answer if inspect.isawaitable(answer) else answer)


def as_async(verify: Callable[..., V]) -> Callable[..., Awaitable[V]]:
    async def verify_later(*arguments: str) -> V:
        return verify(*arguments)

    return verify_later


@pytest.mark.parametrize("wrap", [lambda verify: verify, as_async])
async def test_bearer_passes_the_token_to_the_verifier(
    wrap: Callable[..., Callable[..., str]],
) -> None:
    authenticate = bearer(wrap({"t0ken": "alice"}.get))

    assert await resolve(authenticate, with_authorization("Bearer t0ken")) == Identity("alice")
    assert await resolve(authenticate, with_authorization("bearer  t0ken ")) == Identity("alice")
    for other in ("Bearer other", "Bearer", "Bearer ", "Basic t0ken", "t0ken", ""):
        assert await resolve(authenticate, with_authorization(other)) is None
    assert await resolve(authenticate, with_authorization()) is None


async def test_verifier_may_return_an_identity_with_expiry() -> None:
    authenticate = bearer(lambda _token: Identity("alice", expires_at=5.0))

    assert await resolve(authenticate, with_authorization("Bearer x")) == Identity("alice", 5.0)


@pytest.mark.parametrize("wrap", [lambda verify: verify, as_async])
async def test_basic_passes_name_and_password_to_the_verifier(
    wrap: Callable[..., Callable[..., bool]],
) -> None:
    authenticate = basic(wrap(lambda name, password: (name, password) == ("älice", "a:b")))

    assert await resolve(authenticate, with_authorization(encoded("älice:a:b"))) == Identity(
        "älice"
    )
    assert await resolve(authenticate, with_authorization(encoded("älice:b"))) is None


async def test_basic_verifier_may_return_another_user_name() -> None:
    authenticate = basic(lambda name, _password: {"a": "alice"}.get(name))

    assert await resolve(authenticate, with_authorization(encoded("a:"))) == Identity("alice")
    assert await resolve(authenticate, with_authorization(encoded("b:"))) is None


@pytest.mark.parametrize(
    "value", ["Basic", "Basic ***", "Basic YTp", encoded("no colon"), encoded(b"\xff:a"), "Basic é"]
)
async def test_malformed_basic_credentials_give_no_identity(value: str) -> None:
    assert await resolve(basic(lambda *_: True), with_authorization(value)) is None


async def test_two_authorization_headers_give_no_identity() -> None:
    """A proxy and this library could choose different ones of two headers."""
    connection = with_authorization(encoded("alice:alice"), encoded("bob:bob"))

    assert await resolve(basic(lambda *_: True), connection) is None


@given(st.binary())
def test_any_authorization_header_is_handled(raw: bytes) -> None:
    connection = with_authorization(raw.decode("latin-1"), *[])

    for authenticate in (basic(lambda *_: False), bearer(lambda _token: None)):
        assert authenticate(connection) is None


async def test_user_identity_is_the_user_of_the_middleware() -> None:
    def with_user(user: object) -> Connection:
        return Connection({**http_scope("/"), "user": user})

    assert user_identity(with_user(SimpleUser("alice"))) == Identity("alice")
    assert user_identity(with_user(UnauthenticatedUser())) is None
    assert user_identity(Connection(http_scope("/"))) is None


async def test_capability_gives_a_capability_identity() -> None:
    assert await resolve(capability(), with_authorization()) == CapabilityIdentity()


async def test_first_of_returns_the_first_identity() -> None:
    plain = bearer({"p": "plain", "both": "plain"}.get)
    later = bearer(as_async({"l": "later", "both": "later"}.get))

    for order in ((plain, later), (later, plain)):
        authenticate = first_of(*order, capability())
        assert await resolve(authenticate, with_authorization("Bearer p")) == Identity("plain")
        assert await resolve(authenticate, with_authorization("Bearer l")) == Identity("later")
        assert isinstance(await resolve(authenticate, with_authorization()), CapabilityIdentity)
    assert await resolve(first_of(later, plain), with_authorization("Bearer both")) == Identity(
        "later"
    )
    assert await resolve(first_of(plain, later), with_authorization("Bearer x")) is None
    assert await resolve(first_of(), with_authorization("Bearer x")) is None


def test_challenges_name_the_schemes_of_an_authenticator() -> None:
    names, tokens = basic(lambda *_: True), bearer(lambda _token: None)

    assert challenges_of(names)[0].startswith("Basic realm=")
    assert len(challenges_of(first_of(names, tokens, names, user_identity))) == 2
    assert challenges_of(user_identity) == ("Bearer",)
    assert challenges_of(capability()) == ("Bearer",)


def test_repr_does_not_show_the_verifier() -> None:
    assert "verify" not in repr(bearer(lambda _token: "canary"))


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (["2001:db8:1:2:3:4:5:6", 5], "2001:db8:1:2::"),
        (("2001:db8:1:2:ffff::9", 5), "2001:db8:1:2::"),
        (("::ffff:192.0.2.7", 5), "192.0.2.7"),
        (("testclient", 5), "testclient"),
        (("", 0), ""),
        ((None, None), ""),
        (None, ""),
    ],
)
def test_capability_counts_by_client_address(client: object, address: str) -> None:
    """Addresses of one IPv6 network are one client."""
    identity = capability()(Connection({**http_scope("/"), "client": client}))

    assert isinstance(identity, CapabilityIdentity)
    assert identity.client == address
