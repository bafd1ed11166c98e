"""A TCP proxy between a client and a server of a test, which can be made to misbehave."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from attrs import define, field

__all__ = ["TcpProxy"]

CHUNK_BYTES: Final = 65_536
JOIN_SECONDS: Final = 10.0


@define(eq=False)
class _Link:
    """Two connections, and how many of its two directions are still open."""

    client: socket.socket
    server: socket.socket
    left: int = 2
    is_reset: bool = False

    def shut(self, how: int) -> None:
        for line in (self.client, self.server):
            with suppress(OSError):
                line.shutdown(how)


@define(eq=False)
class TcpProxy:
    """Forwards connections to ``target_port`` of 127.0.0.1, in threads of its own.

    Whatever is set holds for the connections that are open as well as for new ones.

    Attributes:
        delay_seconds: How long each piece is held back, in either direction.
        drops_data: Whether what is sent is swallowed: the line is open, and nobody answers.
        refuses_connections: Whether new connections are closed at once.
        connections: How many were ever made.
        pieces: How many pieces came, from either side.
    """

    target_port: int
    delay_seconds: float = 0.0
    drops_data: bool = False
    refuses_connections: bool = False
    connections: int = field(default=0, init=False)
    chunks: int = field(default=0, init=False)
    _listener: socket.socket = field(init=False)
    _links: list[_Link] = field(factory=list, init=False)
    _threads: list[threading.Thread] = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        # Wakes the thread that accepts; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    def close_connections(self) -> None:
        """Close all connections in an orderly way, also in the middle of an answer."""
        for link in self._taken():
            link.shut(socket.SHUT_RDWR)

    def reset_connections(self) -> None:
        """Break all connections: both ends get a reset."""
        for link in self._taken():
            link.is_reset = True
            for line in (link.client, link.server):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # This wakes the threads that read; their closing sends the reset.
            link.shut(socket.SHUT_RD)

    def _taken(self) -> list[_Link]:
        with self._lock:
            links = [link for link in self._links if link.left]
            self._links.clear()
        return links

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            if self.refuses_connections:
                raise ConnectionRefusedError
            server = socket.create_connection(("127.0.0.1", self.target_port))
        except OSError:
            client.close()
            return
        link = _Link(client, server)
        with self._lock:
            self._links.append(link)
        self._spawn(self._forward, link, client, server)
        self._spawn(self._forward, link, server, client)

    def _forward(self, link: _Link, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                self.chunks += 1
                # A piece at a time, in order: what comes meanwhile waits in the system's buffers.
                time.sleep(self.delay_seconds)
                if not self.drops_data:
                    target.sendall(chunk)
            if not (link.is_reset or self.drops_data):
                target.shutdown(socket.SHUT_WR)
        with self._lock:
            link.left -= 1
            if link.left == 0:
                link.client.close()
                link.server.close()
