"""A TCP proxy that injects network faults between a client and a server."""

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
    """A forwarded connection.

    Attributes:
        client: Connection from the client.
        server: Connection to the server.
        open_directions: Number of directions that are still forwarded.
        is_reset: Whether it is being reset.
    """

    client: socket.socket
    server: socket.socket
    open_directions: int = 2
    is_reset: bool = False

    def shutdown(self, how: int) -> None:
        for connection in (self.client, self.server):
            with suppress(OSError):
                connection.shutdown(how)


@define(eq=False)
class TcpProxy:
    """Forwards connections to a port of 127.0.0.1, in its own threads.

    Changes of the attributes apply to open connections as well as to new ones.

    Attributes:
        target_port: Port of the server.
        delay_seconds: Delay of each chunk, in either direction.
        drops_data: Whether chunks are discarded: connections stay open without any response.
        refuses_connections: Whether new connections are closed immediately.
        connections: Number of connections so far.
        chunks: Number of chunks received so far, from either side.
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
        # Wakes the accepting thread, which closing the socket does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_connections()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    @property
    def port(self) -> int:
        """Port of the proxy on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    def close_connections(self) -> None:
        """Close all connections with FIN, also in the middle of a response."""
        for link in self._remove_links():
            link.shutdown(socket.SHUT_RDWR)

    def reset_connections(self) -> None:
        """Close all connections with RST."""
        for link in self._remove_links():
            link.is_reset = True
            for connection in (link.client, link.server):
                with suppress(OSError):  # its peer has closed it just now
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # Wakes the reading threads, which then close the sockets; that sends the RST.
            link.shutdown(socket.SHUT_RD)

    def _remove_links(self) -> list[_Link]:
        with self._lock:
            links = [link for link in self._links if link.open_directions]
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
                # One chunk at a time; later ones wait in the buffers of the kernel.
                time.sleep(self.delay_seconds)
                if not self.drops_data:
                    target.sendall(chunk)
            if not (link.is_reset or self.drops_data):
                target.shutdown(socket.SHUT_WR)
        with self._lock:
            link.open_directions -= 1
            if link.open_directions == 0:
                link.client.close()
                link.server.close()
