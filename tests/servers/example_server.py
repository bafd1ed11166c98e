"""Run an example server with a rate limit for each request, and optionally TLS.

python tests/servers/example_server.py generic_put.py --port 0 --bytes-per-second 6000000
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import uvicorn
from attrs import frozen
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upload_progress.demo.rate_limit import RateLimit

EXAMPLES = Path(__file__).parents[2] / "examples"


@frozen
class RateLimitedApp:
    """An ASGI application that reads the body of each request at a maximum rate."""

    app: ASGIApp
    bytes_per_second: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rate_limit = RateLimit(self.bytes_per_second)

        async def receive_slowly() -> Message:
            message = await receive()
            await rate_limit.wait(len(message.get("body", b"")))
            return message

        await self.app(scope, receive_slowly, send)


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("example")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bytes-per-second", type=float, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--certificate", help="file with a TLS certificate and its key")
    options = parser.parse_args()
    # s3_gateway.py imports the module next to it.
    sys.path.insert(0, str(EXAMPLES))
    example = importlib.import_module(options.example.removesuffix(".py"))
    tls = {"ssl_certfile": options.certificate} if options.certificate else {}
    with tempfile.TemporaryDirectory() as temporary:
        app = example.create_app(options.data or Path(temporary))
        limited = RateLimitedApp(app, options.bytes_per_second)
        uvicorn.run(limited, port=options.port, timeout_graceful_shutdown=3, **tls)


main()
