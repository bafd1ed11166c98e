"""Calling the application's ``authenticate``: it may raise, hang, or return the wrong type.

If it does, the request is refused with 503, the client learns no reason, and the log gets one
line without a secret. Credentials of a user whose name cannot be an identity are refused with 401:
to send them again does not help.
"""

import inspect
from typing import Final

import anyio
from attrs import frozen

from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.asgi.authentication import AUTHENTICATE_TIMEOUT_SECONDS
from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import Identity, WrongAnswer, identity_from
from upload_progress.interfaces import Authenticate, Clock
from upload_progress.starlette.auth.authenticators import challenges_of, user_identity
from upload_progress.starlette.http import (
    AUTHENTICATION_UNAVAILABLE,
    UNAUTHENTICATED,
    RequestRefused,
)

__all__ = ["IdentityResolver"]

# Browsers open a dialog for these schemes, on top of a page that may have its own sign-in.
_DIALOG_SCHEMES: Final = ("basic", "digest", "negotiate")


@frozen(eq=False, repr=False)
class IdentityResolver:
    """Returns the current identity of a request, by calling ``authenticate``."""

    authenticate: Authenticate
    clock: Clock
    log_limiter: LogLimiter

    async def resolve(self, connection: Connection) -> Identity | None:
        """Return the identity of a request; None if it has none, or if it has expired.

        Raises:
            RequestRefused: ``authenticate`` failed, or took longer than 5 seconds.
        """
        try:
            answer = self.authenticate(connection)
            if inspect.isawaitable(answer):
                with anyio.fail_after(AUTHENTICATE_TIMEOUT_SECONDS):
                    answer = await answer
            if answer is None and self.authenticate is user_identity:
                self._check_user(connection)
            return self._current(answer)
        except WrongAnswer as error:
            self.log_limiter.log_warning(
                "authenticate failed", error, effect="the request is refused with 503"
            )
            raise RequestRefused(AUTHENTICATION_UNAVAILABLE) from None
        except InvalidValue as error:
            self.log_limiter.log_warning(
                "authenticate returned no valid identity",
                error,
                effect="the request is refused with 401",
            )
            return None
        except Exception as error:  # noqa: BLE001  # a failure of the hook must admit no request
            self.log_limiter.log_warning(
                "authenticate failed or timed out",
                error,
                effect="the request is refused with 503",
                names_place=True,
            )
            raise RequestRefused(AUTHENTICATION_UNAVAILABLE) from None

    def _check_user(self, connection: Connection) -> None:
        if "user" not in connection.scope:
            self.log_limiter.log_warning(
                "user_identity needs AuthenticationMiddleware outside of the progress routes",
                effect="the request is refused with 401",
            )

    def _current(self, answer: object) -> Identity | None:
        identity = identity_from(answer)
        if identity is None or identity.expires_at is None:
            return identity
        return identity if self.clock.time() < identity.expires_at else None

    def unauthenticated(self, connection: Connection) -> RequestRefused:
        """Return the 401 for a request, with the challenges of ``authenticate``."""
        challenges = challenges_of(self.authenticate)
        if connection.header("sec-fetch-dest") == "empty":  # sent by a script
            challenges = tuple(
                challenge
                for challenge in challenges
                if not challenge.lower().startswith(_DIALOG_SCHEMES)
            )
        value = ", ".join(challenges) or "Bearer"
        return RequestRefused(UNAUTHENTICATED.with_headers({"www-authenticate": value}))
