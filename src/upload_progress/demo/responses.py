"""Responses of the demo: JSON, and RFC 9457 problem documents for errors."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from upload_progress._model.codec import encode_json
from upload_progress.demo.shutdown import ServerShuttingDown
from upload_progress.demo.uploads import (
    CancelledByOwner,
    DiskFull,
    FileTooLarge,
    PartNotAccepted,
)
from upload_progress.exceptions import InvalidValue
from upload_progress.starlette.http import ErrorResponse

__all__ = ["EXCEPTION_HANDLERS", "FILE_NOT_FOUND", "json_response"]

_Handler = Callable[[Request, Exception], Awaitable[Response]]

# The rest of the body would have to be read before the connection could be reused.
_CLOSE: Final = {"connection": "close"}
_FILE_TOO_LARGE: Final = ErrorResponse.build(
    413, "too_large", "The file is larger than this server accepts.", headers=_CLOSE
)
_DISK_FULL: Final = ErrorResponse.build(
    507, "no_room", "The disk of the server has no space for this file.", headers=_CLOSE
)
_SHUTTING_DOWN: Final = ErrorResponse.build(
    503, "stopping", "The server is shutting down; try again in a moment.", headers=_CLOSE
)
_PART_NOT_ACCEPTED: Final = ErrorResponse.build(
    400,
    "part_not_accepted",
    "This server stores whole files only: send the file in one request, without Content-Range.",
    headers=_CLOSE,
)
_CANCELLED: Final = ErrorResponse.build(
    409, "cancelled", "The upload was cancelled; its file was not kept."
)
FILE_NOT_FOUND: Final = ErrorResponse.build(404, "not_found", "There is no such file.")


def json_response(value: object, *, status: int = 200) -> Response:
    """Return *value* as JSON that must not be cached."""
    headers = {"cache-control": "no-store", "content-type": "application/json"}
    return Response(encode_json(value), status, headers)


def _handler_of(response: ErrorResponse) -> _Handler:
    async def handle(_request: Request, _error: Exception) -> Response:
        return response.to_response()

    return handle


async def _handle_invalid_value(_request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidValue)  # noqa: S101  # registered for no other class
    return ErrorResponse.for_exception(error).to_response()


async def _handle_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for no other class
    response = ErrorResponse.build(
        error.status_code, "http", error.detail, headers=error.headers or {}
    )
    return response.to_response()


async def _handle_disconnect(_request: Request, _error: Exception) -> Response:
    # The client is gone: no response can be delivered.
    return Response(status_code=400)


EXCEPTION_HANDLERS: Final[Mapping[type[Exception], _Handler]] = {
    InvalidValue: _handle_invalid_value,
    FileTooLarge: _handler_of(_FILE_TOO_LARGE),
    DiskFull: _handler_of(_DISK_FULL),
    PartNotAccepted: _handler_of(_PART_NOT_ACCEPTED),
    CancelledByOwner: _handler_of(_CANCELLED),
    ServerShuttingDown: _handler_of(_SHUTTING_DOWN),
    ClientDisconnect: _handle_disconnect,
    HTTPException: _handle_http_exception,
}
"""The exception handlers of the Starlette application."""
