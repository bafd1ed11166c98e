"""Who is who: passwords, and the cookie that replaces them in a browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from upload_progress.connection import Connection
from upload_progress.demo.sessions import COOKIE, SESSION_SECONDS, Sessions, is_password
from upload_progress.identity import Identity

NOW = 1_700_000_000.0
SESSIONS = Sessions(b"key", time=lambda: NOW)


def asking(cookie: str) -> Connection:
    return Connection({"headers": [(b"cookie", f"{COOKIE}={cookie}".encode("latin-1"))]})


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
def test_the_password_is_the_name(user: str, password: str, expected: bool) -> None:
    assert is_password(user, password) is expected


def test_a_cookie_names_its_user_and_its_end() -> None:
    found = SESSIONS.identify(asking(SESSIONS.cookie("alice")))

    assert found == Identity("alice", expires_at=NOW + SESSION_SECONDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda cookie: "",
        lambda cookie: "alice",
        lambda cookie: cookie.replace("alice", "bob"),
        lambda cookie: cookie[:-1],
        lambda cookie: cookie + "é",
        lambda cookie: cookie.replace(".17", ".18"),
        lambda cookie: Sessions(b"other key", time=lambda: NOW).cookie("alice"),
        lambda cookie: Sessions(b"key", time=lambda: NOW - SESSION_SECONDS).cookie("alice"),
    ],
    ids=["none", "bare", "other-name", "cut", "not-ascii", "longer", "other-key", "ended"],
)
def test_no_other_cookie_lets_in(change: Callable[[str], str]) -> None:
    cookie = change(SESSIONS.cookie("alice"))

    assert SESSIONS.identify(asking(cookie)) is None


def test_the_key_is_not_shown() -> None:
    assert "key" not in repr(SESSIONS)
