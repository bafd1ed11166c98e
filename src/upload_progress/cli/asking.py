"""The commands that talk to a server; each loads what it needs when it runs."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from cyclopts import Parameter, Token, validators

from upload_progress.cli.extras import require
from upload_progress.cli.options import Reach, Shown
from upload_progress.cli.sizes import parse_size
from upload_progress.errors import InvalidValue
from upload_progress.model import UploadState

__all__ = ["Size", "cancel", "doctor", "list_uploads", "put", "read_size", "watch"]


class Size(int):
    """A number of bytes."""


def read_size(_type: object, tokens: Sequence[Token]) -> Size:
    """Read ``500k`` and the like."""
    return Size(parse_size(tokens[0].value))


_AnySize = Annotated[Size | None, Parameter(converter=read_size)]
_Reach = Annotated[Reach, Parameter(name="*", negative="")]
_Shown = Annotated[Shown, Parameter(name="*", negative="")]
_Flag = Annotated[bool, Parameter(negative="")]
_Several = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))]
_DEFAULT_REACH = Reach()
_DEFAULT_SHOWN = Shown()


def _run(command: Callable[[], Awaitable[int]]) -> int:
    import anyio  # noqa: PLC0415  # not for --help

    return anyio.run(command)


def put(
    *items: str,
    id: str | None = None,  # noqa: A002  # it is what users type
    group: str | None = None,
    content_type: str | None = None,
    chunk_size: _AnySize = None,
    parallel: _Several = 4,
    reach: _Reach = _DEFAULT_REACH,
    shown: _Shown = _DEFAULT_SHOWN,
) -> int:
    """Send files, and show how far the server has them: put FILE… URL.

    With / at the end of the URL the names of the files are added to it.

    Args:
        items: Files, folders (every file in them is sent), and last the URL.
        id: The upload's id, for one file; without, a fresh one.
        group: What the uploads belong to, such as a release.
        content_type: What the files are; without, their names say it.
        chunk_size: Send pieces of that size, such as 8M, to a server that puts them together.
        parallel: How many files at once.
        reach: How the server is reached.
        shown: How progress is shown.
    """
    require("httpx2", "rich", extra="cli")
    from upload_progress.cli.sending import Wishes, put  # noqa: PLC0415  # it needs the extra

    if len(items) <= 1:
        raise InvalidValue("put", "takes one file or more, and the URL last")
    wishes = Wishes(id, group, content_type, chunk_size, parallel)
    return _run(lambda: put(items[:-1], items[-1], reach, wishes, shown.mode))


def watch(
    url: str,
    upload_id: str | None = None,
    /,
    *,
    group: str | None = None,
    reach: _Reach = _DEFAULT_REACH,
    shown: _Shown = _DEFAULT_SHOWN,
) -> int:
    """Follow an upload to its end, or all of yours until Ctrl-C.

    Args:
        url: The server, its progress routes, or the link of an upload.
        upload_id: Which upload; all without.
        group: Of all, only those of this group.
        reach: How the server is reached.
        shown: How progress is shown.
    """
    require("httpx2", "rich", extra="cli")
    from upload_progress.cli.following import watch  # noqa: PLC0415  # it needs the extra

    return _run(lambda: watch(url, upload_id, group, reach, shown.mode))


def list_uploads(
    url: str,
    /,
    *,
    state: Annotated[tuple[UploadState, ...], Parameter(negative="")] = (),
    group: str | None = None,
    json: _Flag = False,
    reach: _Reach = _DEFAULT_REACH,
) -> int:
    """List your uploads: the open ones, and those that ended in the last minutes.

    Args:
        url: The server, or its progress routes.
        state: Only uploads in this state; may be given several times.
        group: Only uploads of this group.
        json: One snapshot a line.
        reach: How the server is reached.
    """
    require("httpx2", extra="cli")
    from upload_progress.cli.following import list_all  # noqa: PLC0415  # it needs the extra

    return _run(lambda: list_all(url, state, group, reach, as_json=json))


def cancel(url: str, /, *upload_ids: str, reach: _Reach = _DEFAULT_REACH) -> int:
    """Cancel uploads; whoever sends them is cut off.

    Args:
        url: The server, its progress routes, or the link of an upload.
        upload_ids: Which uploads; none where the URL is the link of one.
        reach: How the server is reached.
    """
    require("httpx2", extra="cli")
    from upload_progress.cli.following import cancel  # noqa: PLC0415  # it needs the extra

    return _run(lambda: cancel(url, upload_ids, reach))


def doctor(url: str, /, *, reach: _Reach = _DEFAULT_REACH) -> int:
    """Find out what lies between here and the server, and whether it hides progress.

    Sends a probe of 1 MiB, and watches what becomes of it.

    Args:
        url: Where to put the probe; to / at the end the name upload-progress-probe is added.
        reach: How the server is reached.
    """
    require("httpx2", "wsproto", extra="cli")
    from upload_progress.cli.doctor import examine  # noqa: PLC0415  # it needs the extra

    return _run(lambda: examine(url, reach))
