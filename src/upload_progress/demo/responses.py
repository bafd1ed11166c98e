"""What the demo says: JSON, and problem documents where something is wrong."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from upload_progress._model.codec import encode_json
from upload_progress.demo.shutdown import ServerStops
from upload_progress.demo.uploads import FileTooLarge, NoRoom, StoppedByOwner
from upload_progress.exceptions import InvalidValue
from upload_progress.starlette.http import Problem, problem_of, problem_response

__all__ = [
    "HANDLERS",
    "NO_FILE",
    "json_answer",
]

_Handler = Callable[[Request, Exception], Awaitable[Response]]

# What is still on its way would have to be read before the connection could be used again.
_CLOSING: Final = {"connection": "close"}
_TOO_LARGE: Final = Problem(
    413, "too_large", "The file is larger than this server takes.", headers=_CLOSING
)
_NO_ROOM: Final = Problem(
    507, "no_room", "The server's disk has no room for this file.", headers=_CLOSING
)
_STOPPING: Final = Problem(
    503, "stopping", "The server stops; try again in a moment.", headers=_CLOSING
)
_STOPPED: Final = Problem(409, "cancelled", "The upload was cancelled; its file was not kept.")
NO_FILE: Final = Problem(404, "not_found", "There is no such file.")


def json_answer(value: object, *, status: int = 200) -> Response:
    """Return *value* as JSON that no cache keeps."""
    headers = {"cache-control": "no-store", "content-type": "application/json"}
    return Response(encode_json(value), status, headers)


def _always(problem: Problem) -> _Handler:
    async def answer(_request: Request, _error: Exception) -> Response:
        return problem_response(problem)

    return answer


async def _malformed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidValue)  # noqa: S101  # registered for nothing else
    return problem_response(problem_of(error))


async def _of_framework(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    problem = Problem(error.status_code, "http", error.detail, headers=error.headers or {})
    return problem_response(problem)


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody is there to read it.
    return Response(status_code=400)


HANDLERS: Final[Mapping[type[Exception], _Handler]] = {
    InvalidValue: _malformed,
    FileTooLarge: _always(_TOO_LARGE),
    NoRoom: _always(_NO_ROOM),
    StoppedByOwner: _always(_STOPPED),
    ServerStops: _always(_STOPPING),
    ClientDisconnect: _gone,
    HTTPException: _of_framework,
}
"""What Starlette is told to do with each error."""
