"""Authentication of the demo: passwords and the signed session cookie."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import itsdangerous
import pytest
from starlette.types import Receive, Scope, Send

from tests._support.scripted_server import ScriptedServer
from upload_progress.connection import Connection
from upload_progress.demo.authentication import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    DemoSessionMiddleware,
    authenticate,
    is_password,
)
from upload_progress.identity import Identity

pytestmark = pytest.mark.anyio

KEY = "key"
EXPIRES_AT = time.time() + SESSION_SECONDS


@pytest.mark.parametrize(
    ("user", "password", "expected"),
    [
        ("alice", "alice", True),
        ("bob", "bob", True),
        ("alice", "bob", False),
        ("alice", "", False),
        ("mallory", "mallory", False),
        ("", "", False),
        ("älice", "älice", False),
        ("\ud800", "\ud800", False),
    ],
)
def test_password_is_the_user_name(user: str, password: str, expected: bool) -> None:
    assert is_password(user, password) is expected


def session_cookie(*, user: str = "alice", expires_at: float = EXPIRES_AT, key: str = KEY) -> str:
    session = json.dumps({"user": user, "expires_at": expires_at}).encode()
    return itsdangerous.TimestampSigner(key).sign(base64.b64encode(session)).decode()


async def identity_of(cookie: str) -> object:
    """Return the result of the authenticator for a request with that session cookie."""
    identities: list[object] = []
    server = ScriptedServer()

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        identities.append(authenticate(Connection(scope)))

    scope = {
        "type": "http",
        "headers": [(b"cookie", f"{SESSION_COOKIE}={cookie}".encode("latin-1"))],
    }
    await DemoSessionMiddleware(app, secret_key=KEY)(scope, server.receive, server.send)
    [identity] = identities
    return identity


async def test_session_cookie_authenticates_its_user_until_it_expires() -> None:
    assert await identity_of(session_cookie()) == Identity("alice", expires_at=EXPIRES_AT)


def replace_user(cookie: str) -> str:
    session, signature = cookie.split(".", 1)
    changed = base64.b64decode(session).replace(b"alice", b"bob")
    return f"{base64.b64encode(changed).decode()}.{signature}"


@pytest.mark.parametrize(
    "change",
    [
        lambda _cookie: "",
        lambda _cookie: "alice",
        replace_user,
        lambda cookie: cookie[:-1],
        lambda cookie: "é" + cookie,
        lambda _cookie: session_cookie(key="other key"),
        lambda _cookie: session_cookie(expires_at=time.time() - 1),
    ],
    ids=["empty", "unsigned", "other-user", "truncated", "not-ascii", "other-key", "expired"],
)
async def test_invalid_session_cookie_does_not_authenticate(change: Callable[[str], str]) -> None:
    assert await identity_of(change(session_cookie())) is None


async def test_session_cookie_with_old_signature_does_not_authenticate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signed_at = int(time.time()) - SESSION_SECONDS - 1
    with monkeypatch.context() as patch:
        patch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda _self: signed_at)
        cookie = session_cookie()

    assert await identity_of(cookie) is None
