"""The commands, as cyclopts reads them from these functions."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, Token, validators

from upload_progress.cli.extras import require
from upload_progress.cli.sizes import parse_size

__all__ = ["Size", "demo", "run"]

_app = App(
    name="upload-progress",
    help="Follow uploads live, as the server receives them.",
    version=version("upload-progress"),
)


class Size(int):
    """A number of bytes."""


def _size(_type: object, tokens: Sequence[Token]) -> Size:
    return Size(parse_size(tokens[0].value))


@_app.command
def demo(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 8000,
    data: Path | None = None,
    slow: Annotated[Size | None, Parameter(converter=_size)] = None,
) -> None:
    """Run an artifact server with a web page, to watch uploads arrive.

    Users are alice and bob; the password is the name. For trying out, not for the internet.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        data: The folder for received files; without it, a temporary one.
        slow: Read each upload at this many bytes per second, such as 500k or 2M.
    """
    require("starlette", "uvicorn", "websockets", "python_multipart", extra="demo")
    from upload_progress.demo import Settings, serve  # noqa: PLC0415  # it needs the extra

    serve(Settings(host, port, data, slow))


def run() -> None:
    """Do what the command line says.

    Raises:
        UploadProgressError: It cannot be done; the message says why.
    """
    _app()
