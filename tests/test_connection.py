"""``Connection``: the request head that authenticators read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from upload_progress.connection import Connection


def test_head_is_parsed() -> None:
    connection = Connection(
        {
            "type": "http",
            "method": "PUT",
            "path": "/files/a",
            "query_string": b"a=1&b=%C3%A4&a=2&c",
            "headers": [
                (b"x-one", b"1"),
                (b"X-One", b"2"),
                (b"cookie", b'a=b; session="s=1"'),
                (b"cookie", b"other=x"),
            ],
        }
    )

    assert (connection.method, connection.path) == ("PUT", "/files/a")
    assert connection.header("X-ONE") == "1"
    assert connection.headers("x-one") == ["1", "2"]
    assert connection.header("x-two") is None
    assert connection.query == {"a": "1", "b": "ä", "c": ""}
    assert connection.cookie("session") == "s=1"
    assert connection.cookie("other") == "x"
    assert connection.cookie("none") is None


def test_websocket_without_headers() -> None:
    connection = Connection({"type": "websocket"})

    assert (connection.method, connection.path, connection.query) == ("GET", "", {})


def test_repr_shows_no_secrets() -> None:
    scope = {"type": "http", "headers": [(b"a", b"canary")], "query_string": b"t=canary"}

    assert repr(Connection(scope)) == "<Connection http>"


@given(st.binary(max_size=200), st.lists(st.tuples(st.binary(), st.binary()), max_size=4))
def test_arbitrary_bytes_are_decoded(query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    scope = {
        "type": "http",
        "query_string": query,
        "headers": [*headers, (b"cookie", query)],
    }
    connection = Connection(scope)

    assert all(isinstance(value, str) for value in connection.query.values())
    assert connection.cookie("a") is None or query
    assert connection.header("cookie") is not None


def test_header_names_are_in_lower_case() -> None:
    connection = Connection({"type": "http", "headers": [(b"Via", b"1"), (b"via", b"2")]})

    assert set(connection.header_names) == {b"via"}
