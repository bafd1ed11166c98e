"""The commands that talk to a server; each loads what it needs when it runs."""

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter, Token, validators

from upload_progress._model.models import UploadState
from upload_progress._runtime.optional import require
from upload_progress._runtime.sizes import parse_size
from upload_progress.cli.options import Reach, Shown
from upload_progress.exceptions import InvalidValue

__all__ = [
    "Size",
    "app",
    "cancel",
    "demo",
    "doctor",
    "list_uploads",
    "migrate",
    "put",
    "read_size",
    "run",
    "watch",
]


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
    from upload_progress.cli.put import Wishes, put  # noqa: PLC0415  # it needs the extra

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
    from upload_progress.cli.watch import watch  # noqa: PLC0415  # it needs the extra

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
    from upload_progress.cli.watch import list_all  # noqa: PLC0415  # it needs the extra

    return _run(lambda: list_all(url, state, group, reach, as_json=json))


def cancel(url: str, /, *upload_ids: str, reach: _Reach = _DEFAULT_REACH) -> int:
    """Cancel uploads; whoever sends them is cut off.

    Args:
        url: The server, its progress routes, or the link of an upload.
        upload_ids: Which uploads; none where the URL is the link of one.
        reach: How the server is reached.
    """
    require("httpx2", extra="cli")
    from upload_progress.cli.watch import cancel  # noqa: PLC0415  # it needs the extra

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


# FROM cli.commands: The commands, as cyclopts reads them from these functions.

app: Final[App] = App(
    name="upload-progress",
    # Markdown would take a third of the time that it takes to start.
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help="Follow uploads live, as the server receives them.",
    version=version("upload-progress"),
)


for _command in (put, watch, cancel, doctor):
    app.command(_command)
app.command(list_uploads, name="list")
app.register_install_completion_command(help="Complete commands and options in your shell.")


@app.command
def demo(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8000,
    data: Path | None = None,
    slow: Annotated[Size | None, Parameter(converter=read_size)] = None,
    store: str = "memory:",
    events: str | None = None,
) -> None:
    """Run an artifact server with a web page, to watch uploads arrive.

    Users are alice and bob; the password is the name. For trying out, not for the internet.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        data: The folder for received files; without it, a temporary one.
        slow: Read each upload at this many bytes per second, such as 500k or 2M.
        store: Where sessions are kept, such as redis://127.0.0.1; several demos can share it.
        events: Where events go, such as redis://127.0.0.1; by default where the store is.
    """
    require("starlette", "uvicorn", "websockets", "python_multipart", "itsdangerous", extra="demo")
    from upload_progress.demo import DemoConfig, serve  # noqa: PLC0415  # it needs the extra

    serve(DemoConfig(host, port, data, slow, store, events))


@app.command
def migrate(url: str, /, *, schema: str = "upload_progress") -> None:
    """Make, or bring up to date, the tables that a store in PostgreSQL needs.

    Args:
        url: The database, such as postgresql://user@host/name; PGPASSWORD and ~/.pgpass hold.
        schema: Where the tables shall be.
    """
    require("psycopg", extra="postgres")
    from upload_progress.cli.migrate import migrated  # noqa: PLC0415  # it needs the extra

    print(migrated(url, schema))  # noqa: T201  # it is what the command says


def run() -> int:
    """Do what the command line says, and return the exit code.

    Raises:
        UploadProgressError: It cannot be done; the message says why.
    """
    code = app(result_action="return_value")
    return code if isinstance(code, int) else 0
