"""What the artifact servers share: who asks, a slow line, where files go, the command line.

The users are alice and bob; the password is the name.
"""

import hashlib
import hmac
import re
import tempfile
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request

from upload_progress import Connection, Identity
from upload_progress.starlette import basic

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

USERS = ("alice", "bob")
CHALLENGE = {"www-authenticate": 'Basic realm="artifacts", charset="UTF-8"'}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", re.ASCII)


@basic
def authenticate(name: str, password: str) -> bool:
    return name in USERS and hmac.compare_digest(name.encode(), password.encode())


def user_of(request: Request) -> str:
    """Return who asks; nobody is answered 401."""
    identity = authenticate(Connection(request.scope))
    if not isinstance(identity, Identity):
        raise HTTPException(401, "sign in as alice or bob", CHALLENGE)
    return identity.id


def safe_name(text: str) -> str:
    """Return *text* if it can be a file's name anywhere: never a path, never hidden."""
    if not NAME.fullmatch(text):
        raise HTTPException(400, "a name is letters, digits and ._+-, up to 200")
    return text


def folder(*parts: str | Path) -> Path:
    """Return the folder at that path, made if it is not there."""
    path = Path(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


async def append(path: Path, chunks: AsyncIterator[bytes]) -> int:
    """Write *chunks* at the end of the file as they come, and return its size.

    What came before an upload breaks off is in the file, for a client that resumes.
    """
    async with await anyio.open_file(path, "ab") as file:
        async for chunk in chunks:
            await file.write(chunk)
        return await file.tell()


async def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal digits."""

    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()

    return await anyio.to_thread.run_sync(read)


class Slow:
    """Takes each request body at a rate, so that a bar can be watched on a fast machine."""

    def __init__(self, app: App, *, bytes_per_second: float | None) -> None:
        self.app = app
        self.rate = bytes_per_second

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        rate, due = self.rate, anyio.current_time()
        if rate is None:
            await self.app(scope, receive, send)
            return

        async def slowly() -> Message:
            nonlocal due
            message = await receive()
            due = max(due, anyio.current_time()) + len(message.get("body", b"")) / rate
            await anyio.sleep_until(due)
            return message

        await self.app(scope, slowly, send)


def serve(create_app: Callable[[Path, float | None], App], description: str | None) -> None:
    """Do what the command line says: serve on 127.0.0.1 until told to stop."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", type=Path, help="a folder to keep files in; else they go")
    parser.add_argument("--slow", type=float, metavar="BYTES", help="take so many bytes a second")
    parser.add_argument("--certificate", help="speak TLS: a file with a certificate and its key")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        app = create_app(chosen.data or Path(temporary), chosen.slow)
        tls = {"ssl_certfile": chosen.certificate} if chosen.certificate else {}
        uvicorn.run(app, port=chosen.port, timeout_graceful_shutdown=3, **tls)
