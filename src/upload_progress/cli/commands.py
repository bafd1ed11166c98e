"""The commands, as cyclopts reads them from these functions."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter, validators

from upload_progress.cli.asking import Size, cancel, doctor, list_uploads, put, read_size, watch
from upload_progress.cli.extras import require

__all__ = ["app", "demo", "migrate", "run"]

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
    require("starlette", "uvicorn", "websockets", "python_multipart", extra="demo")
    from upload_progress.demo import Settings, serve  # noqa: PLC0415  # it needs the extra

    serve(Settings(host, port, data, slow, store, events))


@app.command
def migrate(url: str, /, *, schema: str = "upload_progress") -> None:
    """Make, or bring up to date, the tables that a store in PostgreSQL needs.

    Args:
        url: The database, such as postgresql://user@host/name; PGPASSWORD and ~/.pgpass hold.
        schema: Where the tables shall be.
    """
    require("psycopg", extra="postgres")
    from upload_progress.cli.migrating import migrated  # noqa: PLC0415  # it needs the extra

    print(migrated(url, schema))  # noqa: T201  # it is what the command says


def run() -> int:
    """Do what the command line says, and return the exit code.

    Raises:
        UploadProgressError: It cannot be done; the message says why.
    """
    code = app(result_action="return_value")
    return code if isinstance(code, int) else 0
