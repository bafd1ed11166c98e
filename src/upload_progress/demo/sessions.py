"""The two people of the demo, and how a request says which of them it is from.

``alice`` and ``bob``; the password is the name. A program sends HTTP Basic with each request.
A browser signs in once and gets a cookie: the name, when it ends, and a signature over both,
so that nothing has to be stored (RFC 6265).
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final

from attrs import field, frozen

from upload_progress.connection import Connection
from upload_progress.identity import Identity

__all__ = [
    "COOKIE",
    "SESSION_SECONDS",
    "Sessions",
    "USERS",
    "is_password",
]

USERS: Final = ("alice", "bob")
COOKIE: Final = "upload_progress_demo"
SESSION_SECONDS: Final = 12 * 3600


def is_password(user: str, password: str) -> bool:
    """Tell whether that is a user with their password."""
    return user in USERS and hmac.compare_digest(_bytes(user), _bytes(password))


@frozen(repr=False)
class Sessions:
    """Signs and reads the cookie of a browser that has signed in."""

    _key: bytes
    _time: Callable[[], float] = field(default=time.time, kw_only=True)

    def cookie(self, user: str) -> str:
        """Return the value of a cookie that lets *user* in from now on."""
        claim = f"{user}.{int(self._time()) + SESSION_SECONDS}"
        return f"{claim}.{self._sign(claim)}"

    def identify(self, connection: Connection) -> Identity | None:
        """Return who has signed in with the browser that asks."""
        claim, _, signature = (connection.cookie(COOKIE) or "").rpartition(".")
        if not hmac.compare_digest(_bytes(self._sign(claim)), _bytes(signature)):
            return None
        user, _, expires_at = claim.partition(".")
        return Identity(user, float(expires_at)) if self._time() < float(expires_at) else None

    def _sign(self, claim: str) -> str:
        return hmac.new(self._key, _bytes(claim), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
