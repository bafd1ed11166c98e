"""The ``Origin`` check: which pages may act for a user."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests._support.asgi_client import http_scope
from upload_progress import InvalidValue
from upload_progress.connection import Connection
from upload_progress.starlette.auth.origins import Origin, Origins, parse_origin

ORIGINS = Origins.parse(["https://ok.example", "http://localhost:3000", "capacitor://app"])


def request_with(scheme: str = "http", **headers: str) -> Connection:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = http_scope("/", headers={"host": "here.example", **named})
    return Connection({**scope, "scheme": scheme})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ok.example", Origin("https", "ok.example", 443)),
        ("HTTPS://OK.Example:443", Origin("https", "ok.example", 443)),
        ("http://[::1]:8000", Origin("http", "[::1]", 8000)),
        ("capacitor://app", Origin("capacitor", "app", None)),
    ],
)
def test_origin_is_parsed(text: str, expected: Origin) -> None:
    assert parse_origin(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "",
        "*",
        "ok.example",
        "https://",
        "https://a/",
        "https://u@a",
        "https://a:b",
        "https://a b",
        "https://a\\b",
        "https://a:123456",
        "//a",
        "https://a?b",
        "https://[x]",
    ],
)
def test_text_that_is_not_an_origin_gives_none(text: str) -> None:
    assert parse_origin(text) is None


@given(st.text())
def test_any_text_is_parsed_or_gives_none(text: str) -> None:
    origin = parse_origin(text)

    assert origin is None or text.lower().startswith(f"{origin.scheme}://{origin.host}")


@pytest.mark.parametrize("text", ["*", "null", "https://*.example", "https://a/path", ""])
def test_allowed_origins_must_be_origins(text: str) -> None:
    if text == "https://*.example":
        assert not Origins.parse([text]).permits_socket(
            request_with(origin="https://a.example"), has_ticket=False
        )
    else:
        with pytest.raises(InvalidValue, match="allowed_origins"):
            Origins.parse([text])


def test_single_text_is_one_origin() -> None:
    assert Origins.parse("https://ok.example") == Origins.parse(["https://ok.example"])


TRUSTED_ORIGINS = [
    "https://ok.example",
    "HTTPS://OK.EXAMPLE",
    "https://ok.example:443",
    "http://localhost:3000",
    "capacitor://app",
    "http://here.example",
    "https://here.example",
]
FOREIGN_ORIGINS = [
    "null",
    "",
    "https://evil.example",
    "https://ok.example.evil",
    "https://evil.ok.example",
    "https://ok.example:8443",
    "http://ok.example",
    "http://localhost:3001",
    "http://here.example:8080",
    "https://ok.example, https://evil.example",
    "file://here.example",
]


@pytest.mark.parametrize("origin", TRUSTED_ORIGINS)
@pytest.mark.parametrize("extra", [{}, {"cookie": "s=1"}, {"authorization": "Bearer t"}])
def test_trusted_origin_is_permitted(origin: str, extra: dict[str, str]) -> None:
    connection = request_with(origin=origin, **extra)

    assert ORIGINS.permits_socket(connection, has_ticket=False)
    assert ORIGINS.permits_write(connection)
    assert ORIGINS.permits_read(connection)


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize("has_ticket", [False, True])
def test_foreign_origin_may_not_open_a_socket(origin: str, has_ticket: bool) -> None:
    for extra in ({}, {"cookie": "s=1"}, {"authorization": "Bearer t"}):
        assert not ORIGINS.permits_socket(
            request_with(origin=origin, **extra), has_ticket=has_ticket
        )


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"cookie": "s=1"}, False),
        ({"authorization": "Basic YTph"}, False),
        ({"authorization": "Bearer t"}, True),
        ({"authorization": "Bearer t", "cookie": "s=1"}, True),
        ({}, True),
    ],
)
def test_foreign_origin_needs_explicit_credentials(
    origin: str, extra: dict[str, str], expected: bool
) -> None:
    """A browser adds cookies and cached Basic credentials by itself."""
    connection = request_with(origin=origin, **extra)

    assert ORIGINS.permits_write(connection) is expected
    assert ORIGINS.permits_read(connection) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({"authorization": "Basic YTph"}, True),
        ({"authorization": "Basic YTph", "cookie": "s=1"}, True),
        ({"cookie": "s=1"}, False),
        ({"cookie": "s=1", "sec_fetch_site": "same-origin"}, True),
        ({"cookie": "s=1", "sec_fetch_site": "same-site"}, False),
        ({"cookie": "s=1", "sec_fetch_site": "cross-site"}, False),
    ],
)
def test_cookie_without_origin_needs_sec_fetch_site(
    headers: dict[str, str], expected: bool
) -> None:
    connection = request_with(**headers)

    assert ORIGINS.permits_write(connection) is expected
    assert ORIGINS.permits_socket(connection, has_ticket=False) is expected
    assert ORIGINS.permits_socket(connection, has_ticket=True)
    assert ORIGINS.permits_read(connection)


def test_http_origin_is_foreign_to_an_https_server() -> None:
    for scheme in ("https", "wss"):
        assert not Origins.parse([]).permits_socket(
            request_with(scheme, origin="http://here.example"), has_ticket=False
        )
        assert Origins.parse([]).permits_socket(
            request_with(scheme, origin="https://here.example"), has_ticket=False
        )


@pytest.mark.parametrize("headers", [[], [b"a.example", b"a.example"], [b"a/b"]])
def test_ambiguous_host_header_makes_the_origin_foreign(headers: list[bytes]) -> None:
    scope: dict[str, Any] = http_scope("/")
    scope["headers"] = [(b"host", host) for host in headers] + [(b"origin", b"http://a.example")]

    assert not ORIGINS.permits_socket(Connection(scope), has_ticket=False)


def test_two_origin_headers_are_foreign() -> None:
    scope: dict[str, Any] = http_scope("/", headers={"cookie": "s=1"})
    scope["headers"] += [(b"origin", b"https://ok.example")] * 2

    assert not ORIGINS.permits_write(Connection(scope))
