"""The commands of ``upload-progress``, as functions that cyclopts makes commands from.

Each function imports its implementation when it runs, so that ``--help`` is fast and works without
the packages that only the commands need.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, CycloptsError, Parameter, Token, validators

from upload_progress._model.models import UploadState
from upload_progress._runtime.optional import hidden, require
from upload_progress._runtime.sizes import parse_size
from upload_progress.cli.options import ConnectionOptions, OutputMode, OutputOptions, SortKey
from upload_progress.exceptions import InvalidValue

if TYPE_CHECKING:
    from upload_progress.cli.output import Output

__all__ = [
    "Size",
    "app",
    "cancel",
    "convert_size",
    "demo",
    "doctor",
    "list_uploads",
    "migrate",
    "open_output",
    "put",
    "register_completion",
    "run",
    "top",
    "watch",
]


class Size(int):
    """A number of bytes, given as ``500k`` or ``2M``."""


def convert_size(_type: object, tokens: Sequence[Token]) -> Size:
    """Convert an argument of the command line to a size."""
    return Size(parse_size(tokens[0].value))


_Connection = Annotated[ConnectionOptions, Parameter(name="*", negative="")]
_Output = Annotated[OutputOptions, Parameter(name="*", negative="")]
_Flag = Annotated[bool, Parameter(negative="", show_default=False)]
_Parallel = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))]
_Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]
_Patterns = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]
_Seconds = Annotated[float, Parameter(validator=validators.Number(gte=0.1, lte=3600))]
_OptionalSize = Annotated[Size | None, Parameter(converter=convert_size)]
_States = Annotated[tuple[UploadState, ...], Parameter(negative="", show_default=False)]
_STANDARD_INPUT: Final = "/dev/stdin"
_DEFAULT_CONNECTION: Final = ConnectionOptions()
_DEFAULT_OUTPUT: Final = OutputOptions()

_INSTALL_COMPLETION: Final = "--install-completion"
_EPILOGUE: Final = """\
Examples:
  upload-progress put dist/ https://host/files/
  tar c dist | upload-progress put - https://host/files/dist.tar
  upload-progress watch --group nightly https://host
  upload-progress doctor https://host/files/

Environment:
  UPLOAD_PROGRESS_TOKEN  bearer token
  UPLOAD_PROGRESS_BASIC  user:password, else the entry of the host in ~/.netrc
  NO_COLOR, CI           no colors; lines instead of bars

Exit codes:
  0 success, 1 failed, 2 usage error, 3 unreachable or busy, 4 access denied,
  130 interrupted
"""


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  # only for --version

    return version("upload-progress")


app: Final[App] = App(
    name="upload-progress",
    # Rendering Markdown would take a third of the start-up time.
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help="Send uploads, and watch them while the server receives them.",
    help_epilogue=_EPILOGUE,
    version=_version,
)


@cache
def register_completion() -> None:
    """Add ``--install-completion``, which imports what completion needs."""
    app.register_install_completion_command(
        _INSTALL_COMPLETION, help="Install shell completion for this command."
    )


def _run(command: Callable[[], Awaitable[int]]) -> int:
    import anyio  # noqa: PLC0415  # not for --help

    # httpx2 imports them if they are installed. Commands run on asyncio, and send HTTP/1.1.
    with hidden("trio", "h2"):
        return anyio.run(command)


def open_output(options: OutputOptions, environment: Mapping[str, str] = os.environ) -> "Output":
    """Return the output for *options*; ``auto`` depends on standard error and the environment."""
    from upload_progress.cli.output import JsonOutput, PlainOutput  # noqa: PLC0415  # not for --help

    mode = options.mode
    if mode is OutputMode.AUTO:
        can_draw = environment.get("TERM") != "dumb" and not environment.get("CI")
        mode = OutputMode.TTY if sys.stderr.isatty() and can_draw else OutputMode.PLAIN
    if mode is OutputMode.TTY:
        from upload_progress.cli.progress import TerminalOutput  # noqa: PLC0415  # imports rich

        output: Output = TerminalOutput()
    else:
        output = JsonOutput() if mode is OutputMode.JSON else PlainOutput(mode is OutputMode.NONE)
    output.is_verbose = options.verbose
    return output


@app.command(usage="Usage: upload-progress put [OPTIONS] FILE... URL")
def put(
    *items: str,
    id: str | None = None,  # noqa: A002  # the name of the option
    group: str | None = None,
    content_type: str | None = None,
    chunk_size: _OptionalSize = None,
    parallel: _Parallel = 4,
    form: str | None = None,
    tus: _Flag = False,
    no_resume: _Flag = False,
    hidden: _Flag = False,
    exclude: _Patterns = (),
    dry_run: _Flag = False,
    connection: _Connection = _DEFAULT_CONNECTION,
    output: _Output = _DEFAULT_OUTPUT,
) -> int:
    """Send files, and show how much of them the server has received: put FILE… URL.

    If the URL ends with /, the names of the files are appended to it.

    Args:
        items: Files, folders (every file in them is sent), or - for standard input, and last the
            URL.
        id: Id of the upload, if one file is sent. Default: a new id.
        group: Group that the uploads belong to, such as a release.
        content_type: Media type of the files. Default: guessed from their names.
        chunk_size: Size of one request, such as 8M, for a server that accepts Content-Range.
        parallel: How many files are sent at once.
        form: Send each file with POST as a form, in this field.
        tus: Send each file by tus 1.0.0: the URL creates uploads. An upload that an earlier run has
            not finished goes on.
        no_resume: With --tus: do not go on with uploads of earlier runs, nor remember this one.
        hidden: Send the files of a folder whose names, or folders, begin with a dot, too.
        exclude: Skip the files of a folder whose names or paths match, such as '*.log'; can be
            given several times.
        dry_run: Print what would be sent and where; send nothing.
        connection: How to connect to the server.
        output: How to show progress.
    """
    require("httpx2", "rich", extra="cli")
    from upload_progress.cli.put import HiddenFiles, PutOptions, put  # noqa: PLC0415  # imports httpx2
    from upload_progress.cli.put.unfinished import state_folder  # noqa: PLC0415  # not for --help

    if len(items) <= 1:
        raise InvalidValue("put", "needs at least one file, and the URL as the last argument")
    options = PutOptions(
        upload_id=id,
        group=group,
        content_type=content_type,
        chunk_bytes=chunk_size,
        parallel=parallel,
        hidden=HiddenFiles.SEND if hidden else HiddenFiles.SKIP,
        is_dry_run=dry_run,
        exclude=exclude,
        form=form,
        uses_tus=tus,
        memory=None if no_resume else state_folder(),
    )
    return _run(lambda: put(items[:-1], items[-1], connection, options, open_output(output)))


@app.command
def watch(
    url: str,
    upload_id: str | None = None,
    /,
    *,
    group: str | None = None,
    wait: _Flag = False,
    connection: _Connection = _DEFAULT_CONNECTION,
    output: _Output = _DEFAULT_OUTPUT,
) -> int:
    """Watch one upload or a group until it ends, or all your uploads until Ctrl-C.

    Args:
        url: URL of the server, of its progress routes, or of an upload's progress.
        upload_id: Id of the upload. Default: all your uploads.
        group: Without an id: only uploads of this group, until all of them have ended.
        wait: Wait for an upload or group that does not exist yet.
        connection: How to connect to the server.
        output: How to show progress.
    """
    require("httpx2", "rich", extra="cli")
    from upload_progress.cli.watch import watch  # noqa: PLC0415  # imports httpx2

    return _run(lambda: watch(url, upload_id, group, connection, open_output(output), wait=wait))


@app.command(name="list")
def list_uploads(
    url: str,
    /,
    *,
    state: _States = (),
    group: str | None = None,
    json: _Flag = False,
    connection: _Connection = _DEFAULT_CONNECTION,
) -> int:
    """List your uploads: the open ones, and those that have ended within the last minutes.

    Args:
        url: URL of the server, or of its progress routes.
        state: Only uploads in this state; can be given several times.
        group: Only uploads of this group.
        json: Print one snapshot per line as JSON.
        connection: How to connect to the server.
    """
    require("httpx2", extra="cli")
    from upload_progress.cli.watch import list_uploads  # noqa: PLC0415  # imports httpx2

    return _run(lambda: list_uploads(url, state, group, connection, as_json=json))


@app.command
def cancel(url: str, /, *upload_ids: str, connection: _Connection = _DEFAULT_CONNECTION) -> int:
    """Cancel uploads; the server closes their running requests.

    Args:
        url: URL of the server, of its progress routes, or of an upload's progress.
        upload_ids: Ids of the uploads; none if the URL is that of an upload's progress.
        connection: How to connect to the server.
    """
    require("httpx2", extra="cli")
    from upload_progress.cli.watch import cancel  # noqa: PLC0415  # imports httpx2

    return _run(lambda: cancel(url, upload_ids, connection))


@app.command
def top(
    url: str,
    /,
    *,
    owner: str = "*",
    state: _States = (),
    sort: SortKey = SortKey.SPEED,
    interval: _Seconds = 1.0,
    once: _Flag = False,
    json: _Flag = False,
    connection: _Connection = _DEFAULT_CONNECTION,
) -> int:
    """Show the open uploads of all owners in a live table, for operators, until Ctrl-C.

    Without a terminal, one table is printed.

    Args:
        url: URL of the server, or of its progress routes.
        owner: Only uploads of this owner.
        state: Only uploads in this state; can be given several times.
        sort: What the table is sorted by.
        interval: Seconds between two tables.
        once: Print one table, and end.
        json: Print one snapshot per line as JSON, and end.
        connection: How to connect to the server.
    """
    require("httpx2", "rich", extra="cli")
    from upload_progress.cli.top import top  # noqa: PLC0415  # imports httpx2

    return _run(
        lambda: top(
            url, owner, state, sort, connection, seconds=interval, is_once=once, as_json=json
        )
    )


@app.command
def doctor(
    url: str,
    path: str | None = None,
    /,
    *,
    form: str | None = None,
    connection: _Connection = _DEFAULT_CONNECTION,
) -> int:
    """Find out why progress is late, wrong or missing.

    Sends a probe of 1 MiB, asks the server how much of it has arrived, and names the cause of
    each problem with its fix.

    Args:
        url: Where to send the probe; if it ends with /, upload-progress-probe is appended. Or an
            application as module:app, which is run in this process, without a proxy.
        path: With module:app: the path of an endpoint that accepts uploads.
        form: Send the probe with POST as a form, in this field.
        connection: How to connect to the server.
    """
    require("httpx2", "wsproto", extra="cli")
    from upload_progress.cli.doctor import TARGET, diagnose, diagnose_app  # noqa: PLC0415  # imports httpx2

    if TARGET.fullmatch(url):
        require("uvicorn", extra="demo")
        import anyio  # noqa: PLC0415  # not for --help

        # Not by _run: the application may need what that hides.
        return anyio.run(lambda: diagnose_app(url, path, connection, form=form))
    if path is not None:
        raise InvalidValue("path", "is part of the URL, unless an application is checked")
    return _run(lambda: diagnose(url, connection, form=form))


@app.command
def demo(
    *,
    host: str = "127.0.0.1",
    port: _Port = 8000,
    data: Path | None = None,
    slow: _OptionalSize = None,
    store: str | None = None,
    events: str | None = None,
) -> None:
    """Run an artifact server with a web page that shows uploads while they arrive.

    The users are alice, bob and operator; the password is the name. Do not expose it to the
    internet. The variables UPLOAD_PROGRESS_... of the settings are read.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        data: Folder for received files. Default: a temporary folder.
        slow: Read each upload at this many bytes per second, such as 500k or 2M.
        store: URL of the session store, such as redis://127.0.0.1; demos can share it. Default:
            UPLOAD_PROGRESS_STORE_URL, else the memory of the process.
        events: URL of the event broker, such as redis://127.0.0.1. Default: that of the store.
    """
    require("starlette", "uvicorn", "websockets", "python_multipart", "itsdangerous", extra="demo")
    from upload_progress.demo import DemoConfig, serve  # noqa: PLC0415  # imports starlette

    serve(DemoConfig(host, port, data, slow, store, events))


@app.command
def migrate(url: str, /, *, schema: str = "upload_progress") -> None:
    """Create or update the tables of a session store in PostgreSQL.

    Args:
        url: URL of the database, such as postgresql://user@host/name. libpq's PGPASSWORD and
            ~/.pgpass are used as well.
        schema: Schema that contains the tables.
    """
    require("psycopg", extra="postgres")
    from upload_progress.cli.migrate import run_migration  # noqa: PLC0415  # imports psycopg

    print(run_migration(url, schema))  # noqa: T201  # the output of the command


def run() -> int:
    """Run the command that the command line names, and return its exit code.

    Raises:
        UploadProgressError: The command failed; the message contains the cause.
    """
    # The parser takes a hyphen for an option.
    arguments = [_STANDARD_INPUT if each == "-" else each for each in sys.argv[1:]]
    if arguments[:1] == [_INSTALL_COMPLETION]:
        register_completion()
    try:
        code = app(arguments, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise InvalidValue(" ".join(arguments[:1]) or "arguments", str(error)) from None
    return code if isinstance(code, int) else 0
