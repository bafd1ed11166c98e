"""Authentication of requests, with an ``authenticate`` that works, fails or hangs."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from tests._support.asgi_client import as_user, build_app, client, http_scope, open_connection
from upload_progress import Identity, InvalidValue, ProgressTracker
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate
from upload_progress.starlette import (
    basic,
    bearer,
    capability,
    first_of,
    progress_routes,
    user_identity,
)
from upload_progress.starlette.auth import identity_resolver

pytestmark = pytest.mark.anyio


def test_authenticate_is_required() -> None:
    """Forgetting ``authenticate`` is an error at start, not public access."""
    with pytest.raises(TypeError, match="authenticate"):
        progress_routes(ProgressTracker())  # type: ignore[call-arg]  # that is the test
    with pytest.raises(InvalidValue, match="authenticate"):
        progress_routes(ProgressTracker(), authenticate=None)  # type: ignore[arg-type]  # the same


@pytest.mark.parametrize("name", ["revalidate_seconds", "stream_life_seconds"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_durations_must_be_positive(name: str, seconds: float) -> None:
    options: dict[str, Any] = {name: seconds}
    with pytest.raises(InvalidValue, match=name):
        progress_routes(ProgressTracker(), authenticate=capability(), **options)


def raises(_connection: Connection) -> Identity:
    raise RuntimeError("canary-in-an-error")


async def raises_later(_connection: Connection) -> Identity:
    raise ExceptionGroup("canary-in-a-group", [ValueError("canary")])


async def hangs(_connection: Connection) -> None:
    await anyio.sleep_forever()


def returns_a_dict(_connection: Connection) -> dict[str, str]:
    return {"canary": "alice"}


def returns_an_awaitable_twice(_connection: Connection) -> Awaitable[object]:
    async def outer() -> object:
        inner = hangs(_connection)
        inner.close()
        return inner

    return outer()


def ends_sometime(_connection: Connection) -> Identity:
    return Identity("alice", expires_at="tomorrow")  # type: ignore[arg-type]  # hooks make mistakes


BROKEN: list[Callable[[Connection], Any]] = [
    raises,
    raises_later,
    hangs,
    returns_a_dict,
    returns_an_awaitable_twice,
    ends_sometime,
]


@pytest.mark.parametrize("authenticate", BROKEN, ids=lambda hook: hook.__name__)
async def test_failing_authenticate_gives_503(
    authenticate: Authenticate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The upload itself succeeds, and the log gets one line without a secret."""
    monkeypatch.setattr(identity_resolver, "AUTHENTICATE_TIMEOUT_SECONDS", 0.01)
    app = build_app(authenticate=authenticate)
    async with client(app) as http:
        uploaded = await http.put("/files/x", content=b"12", headers={"upload-id": "mine"})
        answers = [await http.get("/uploads/progress"), await http.post("/uploads/tickets")]
        with anyio.fail_after(20):
            stream = await http.get(
                "/uploads/mine/progress", headers={"accept": "text/event-stream"}
            )

    assert uploaded.json() == {"size": 2}
    for answer in [*answers, stream]:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["code"] == "authentication_unavailable"
    assert len([text for text in caplog.messages if "refused with 503" in text]) == 1
    assert "canary" not in caplog.text


@pytest.mark.parametrize("name", ["", "half of a pair: \ud800", "zero: \0", "capability:x"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_user_whose_name_is_no_identity_gets_401(
    name: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A token can contain any text. The upload itself succeeds, untracked; it is logged once."""

    def by_token(_connection: Connection) -> Identity:
        return Identity(name)

    async def by_token_later(_connection: Connection) -> Identity:
        return Identity(name)

    app = build_app(authenticate=by_token_later if is_async else by_token)
    async with client(app) as http:
        uploads = [
            await http.put("/files/x", content=b"12", headers={"upload-id": "mine"})
            for _ in range(2)
        ]
        answers = [await http.get("/uploads/progress"), await http.post("/uploads/tickets")]
        answers.append(
            await http.get("/uploads/mine/progress", headers={"accept": "text/event-stream"})
        )

    assert all(upload.json() == {"size": 2} for upload in uploads)
    assert not any("upload-id" in upload.headers for upload in uploads)
    assert [answer.status_code for answer in answers] == [401] * 3
    assert len([text for text in caplog.messages if "refused with 401" in text]) == 1
    assert len([text for text in caplog.messages if "uploads are not affected" in text]) == 1
    assert not name or name not in caplog.text


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_expired_identity_gives_401(seconds: float) -> None:
    app = build_app(authenticate=lambda _: Identity("alice", expires_at=time.time() - seconds))
    async with client(app) as http:
        answer = await http.get("/uploads/progress")

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_401_carries_the_challenges_of_the_authenticators() -> None:
    both = first_of(bearer(lambda _: None), basic(lambda *_: False))
    async with client(build_app(authenticate=both), user=None) as http:
        for_programs = await http.get("/uploads/progress")
        for_scripts = await http.get("/uploads/progress", headers={"sec-fetch-dest": "empty"})

    assert for_programs.headers["www-authenticate"] == (
        'Bearer realm="upload-progress", Basic realm="upload-progress", charset="UTF-8"'
    )
    # A browser would open a dialog for Basic, on top of a page with its own sign-in.
    assert for_scripts.headers["www-authenticate"] == 'Bearer realm="upload-progress"'


async def test_script_gets_bearer_challenge_instead_of_basic() -> None:
    app = build_app()
    async with open_connection(
        app, http_scope("/uploads/progress", headers={"sec-fetch-dest": "empty"})
    ) as connection:
        status, headers, _ = await connection.receive_response()

    assert (status, headers["www-authenticate"]) == (401, "Bearer")


WRITES = [
    ("POST", "/uploads"),
    ("POST", "/uploads/tickets"),
    ("POST", "/uploads/some/subscribe"),
    ("DELETE", "/uploads/some"),
    ("DELETE", "/uploads/some/unsubscribe"),
]


def by_cookie(connection: Connection) -> Identity | None:
    name = connection.cookie("session")
    return None if name is None else Identity(name)


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_write_with_cookie_is_refused_for_foreign_origin(method: str, path: str) -> None:
    app = build_app(authenticate=by_cookie, allowed_origins=["https://ok.example"])
    async with client(app, user=None, cookies={"session": "alice"}) as http:
        for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {}):
            refused = await http.request(method, path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
        for headers in (
            {"origin": "https://ok.example"},
            {"origin": "http://server"},
            {"sec-fetch-site": "same-origin"},
        ):
            assert (await http.request(method, path, headers=headers)).status_code != 403


async def test_stream_with_cookie_is_refused_for_foreign_origin() -> None:
    app = build_app(authenticate=by_cookie)
    headers = {"accept": "text/event-stream", "origin": "https://evil.example"}
    async with client(app, user=None, cookies={"session": "alice"}) as http:
        for path in ("/uploads/progress", "/uploads/some/progress"):
            assert (await http.get(path, headers=headers)).status_code == 403


async def test_user_of_authentication_middleware_is_the_owner(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class ByHeader(AuthenticationBackend):
        async def authenticate(
            self, conn: HTTPConnection
        ) -> tuple[AuthCredentials, SimpleUser] | None:
            name = conn.headers.get("x-user")
            return None if name is None else (AuthCredentials(), SimpleUser(name))

    middleware = [Middleware(AuthenticationMiddleware, backend=ByHeader())]
    app = build_app(authenticate=user_identity, middleware=middleware)
    async with client(app, user=None) as http:
        made = await http.post("/uploads", headers={"x-user": "alice"})
        path = made.headers["location"]
        statuses = [
            (await http.get(path, headers=headers)).status_code
            for headers in ({"x-user": "alice"}, {"x-user": "bob"}, {})
        ]

    assert statuses == [200, 404, 401]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_as_user_returns_basic_credentials() -> None:
    assert as_user("alice") == {"authorization": "Basic YWxpY2U6YWxpY2U="}


async def test_function_of_another_signature_is_named_as_the_place_of_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = build_app(authenticate=capability)  # type: ignore[arg-type]  # the mistake: not called
    async with app.router.lifespan_context(app), client(app) as http:
        await http.put("/files/x", content=b"12", headers={"upload-id": "mine"})
        await http.get("/uploads/progress")

    assert len(caplog.messages) == 2
    assert all("(TypeError when it was called)" in each for each in caplog.messages)


@pytest.mark.parametrize("authenticate", [raises, raises_later])
async def test_place_of_an_error_in_authenticate_is_logged(
    authenticate: Authenticate, caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app(authenticate=authenticate)
    async with app.router.lifespan_context(app), client(app) as http:
        await http.put("/files/x", content=b"12", headers={"upload-id": "mine"})
        await http.get("/uploads/progress")
    line = authenticate.__code__.co_firstlineno + 1

    assert len(caplog.messages) == 2
    assert all(f"in test_authentication.py, line {line})" in each for each in caplog.messages)


@pytest.mark.parametrize("is_async", [False, True])
async def test_authenticate_may_return_the_name_of_the_user(*, is_async: bool) -> None:
    def name(connection: Connection) -> str | None:
        return connection.header("x-user")

    async def name_later(connection: Connection) -> str | None:
        return connection.header("x-user")

    app = build_app(authenticate=name_later if is_async else name)
    async with client(app, headers={"x-user": "alice"}) as alice:
        await alice.put("/files/x", content=b"12", headers={"upload-id": "mine"})
        found = await alice.get("/uploads/mine/progress")
        others = await alice.get("/uploads/mine/progress", headers={"x-user": "bob"})
        unnamed = await alice.get("/uploads/mine/progress", headers={"x-user": ""})

    assert found.json()["bytes_transferred"] == 2
    assert (others.status_code, unnamed.status_code) == (404, 401)
