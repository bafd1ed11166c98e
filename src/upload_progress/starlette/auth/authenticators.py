"""Ready-made answers to "who is asking?", for ``authenticate=``.

Each is a callable from ``Connection`` to ``Identity`` or None, for the middleware and for the
routes alike. A verifier that compares a secret with ``==`` tells its length and its beginning
by the time it takes: compare with ``hmac.compare_digest``, or by a password hash. A plain
verifier runs on the event loop, so one that asks a database or hashes slowly must be async.

Sources: RFC 6750 (bearer), RFC 7617 (basic), RFC 9110 section 11 (challenges).
"""

import binascii
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import field, frozen

from upload_progress.connection import Connection
from upload_progress.identity import CapabilityIdentity, Identity
from upload_progress.interfaces import Authenticate

__all__ = [
    "Verdict",
    "basic",
    "bearer",
    "capability",
    "challenges_of",
    "first_of",
    "user_identity",
]

Verdict = Identity | str | None
"""What a verifier says: who it is, by identity or by name; None for nobody."""

_DEFAULT_CHALLENGE: Final = "Bearer"


def user_identity(connection: Connection) -> Identity | None:
    """Take the user whom Starlette's ``AuthenticationMiddleware`` found, by its ``identity``.

    Who logs out is noticed when a stream or socket is next opened, not before.
    """
    user = connection.scope.get("user")
    if user is None or not user.is_authenticated:
        return None
    return Identity(user.identity)


def bearer(verify: Callable[[str], Verdict | Awaitable[Verdict]]) -> Authenticate:
    """Ask *verify* about the token of ``Authorization: Bearer``.

    Args:
        verify: Says whose token that is; plain or async.
    """

    def ask(connection: Connection) -> Verdict | Awaitable[Verdict]:
        token = _credentials(connection, "bearer")
        return verify(token) if token else None

    return _Asking(ask, ('Bearer realm="upload-progress"',))


def basic(verify: Callable[[str, str], Verdict | bool | Awaitable[Verdict | bool]]) -> Authenticate:
    """Ask *verify* about the user name and password of ``Authorization: Basic``.

    Args:
        verify: Says who that is; True for "the one of that name". Plain or async.
    """

    async def wait(name: str, verdict: Awaitable[Verdict | bool]) -> Verdict:
        return _named(name, await verdict)

    def ask(connection: Connection) -> Verdict | Awaitable[Verdict]:
        name, colon, password = _decoded(_credentials(connection, "basic")).partition(":")
        if not colon:
            return None
        verdict = verify(name, password)
        return wait(name, verdict) if inspect.isawaitable(verdict) else _named(name, verdict)

    return _Asking(ask, ('Basic realm="upload-progress", charset="UTF-8"',))


def capability() -> Authenticate:
    """Let in whoever holds an unguessable id, to that upload, and to nothing else.

    Only ids that can hold 120 random bits are accepted, and there are no lists.
    """
    return _Asking(lambda _connection: CapabilityIdentity(), ())


def first_of(*authenticators: Authenticate) -> Authenticate:
    """Ask one after the other; the first who knows the caller is believed."""

    async def wait(
        first: Awaitable[Identity | None], rest: list[Authenticate], connection: Connection
    ) -> Verdict:
        identity = await first
        if identity is not None:
            return identity
        later = ask_all(rest, connection)
        return await later if inspect.isawaitable(later) else later

    def ask_all(
        candidates: list[Authenticate], connection: Connection
    ) -> Verdict | Awaitable[Verdict]:
        for number, candidate in enumerate(candidates, 1):
            answer = candidate(connection)
            if inspect.isawaitable(answer):
                return wait(answer, candidates[number:], connection)
            if answer is not None:
                return answer
        return None

    challenges = dict.fromkeys(each for one in authenticators for each in challenges_of(one, ()))
    return _Asking(lambda connection: ask_all(list(authenticators), connection), tuple(challenges))


def challenges_of(
    authenticate: Authenticate, otherwise: tuple[str, ...] = (_DEFAULT_CHALLENGE,)
) -> tuple[str, ...]:
    """Return what a 401 says in ``WWW-Authenticate``: how one could show who one is."""
    if isinstance(authenticate, _Asking) and authenticate.challenges:
        return authenticate.challenges
    return otherwise


@frozen
class _Asking:
    ask: Callable[[Connection], Verdict | Awaitable[Verdict]] = field(repr=False)
    challenges: tuple[str, ...]

    def __call__(self, connection: Connection) -> Identity | Awaitable[Identity | None] | None:
        verdict = self.ask(connection)
        return _later(verdict) if inspect.isawaitable(verdict) else _identity(verdict)


async def _later(verdict: Awaitable[Verdict]) -> Identity | None:
    return _identity(await verdict)


def _identity(verdict: Verdict) -> Identity | None:
    return Identity(verdict) if isinstance(verdict, str) else verdict


def _named(name: str, verdict: Verdict | bool) -> Verdict:
    if isinstance(verdict, bool):
        return name if verdict else None
    return verdict


def _credentials(connection: Connection, scheme: str) -> str:
    """Return what follows *scheme* in the one ``Authorization`` header, or nothing."""
    headers = connection.headers("authorization")
    if len(headers) != 1:
        return ""
    found, _, credentials = headers[0].partition(" ")
    return credentials.strip() if found.lower() == scheme else ""


def _decoded(credentials: str) -> str:
    try:
        return binascii.a2b_base64(credentials.encode("latin-1"), strict_mode=True).decode()
    except ValueError:
        return ""
