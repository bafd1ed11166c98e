"""How ``benchmarks.peers`` starts each server, sends a file to it, and watches the upload."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from attrs import define, field, frozen

from benchmarks.client import request_head
from benchmarks.harness import (
    ROOT,
    child_environment,
)

POLL_SECONDS = 0.25
START_SECONDS = 60.0
NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_http_uploadprogress_module.so")
BOUNDARY = "upload-progress-benchmark"


@frozen
class Shown:
    """What a watcher sees: at which time, how many bytes, and which state."""

    at: float
    size_bytes: int | None
    state: str


@frozen
class Request:
    """A request that carries an upload: its head, and what is around the bytes of the file."""

    head: bytes
    prefix: bytes = b""
    suffix: bytes = b""


@frozen
class Running:
    """A server that runs: its port, its processes, and the port of a backend or of hooks."""

    port: int
    pids: tuple[int, ...]
    hooks: Hooks | None = None


@define(eq=False)
class Hooks:
    """A server that receives the hooks of tusd."""

    port: int = 0
    shown: dict[str, list[Shown]] = field(factory=dict)

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Serve in a thread."""
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that the standard library calls
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                hooks.receive(json.loads(body))

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()

    def receive(self, hook: dict[str, dict[str, dict[str, object]]]) -> None:
        """Keep what a hook says."""
        upload = hook["Event"]["Upload"]
        shown = Shown(time.monotonic(), int(str(upload["Offset"])), str(hook["Type"]))
        self.shown.setdefault(str(upload["ID"]).partition("+")[0], []).append(shown)


@frozen(kw_only=True)
class Peer:
    """One of those that are compared.

    Attributes:
        name: Its short name.
        title: Its name in the table.
        keeps: What the server does with the bytes.
        watched: How its progress was watched.
        cannot: What it cannot do.
        install: The line that installs it.
        is_installed: Whether it is.
        start: Starts it, with the largest size that it accepts.
        request: Prepares a request, for an id and a size.
        watch: Yields what a watcher sees, until told to stop.
    """

    name: str
    title: str
    keeps: str
    watched: str
    cannot: str
    install: str = ""
    is_installed: Callable[[], bool] = lambda: True
    start: Callable[[Tools, int], Running]
    request: Callable[[Running, str, int], Request]
    watch: Callable[[Running, str, threading.Event], Iterator[Shown]]


@define(eq=False)
class Tools:
    """Starts servers, and stops them at the end."""

    stack: ExitStack
    redis_url: str
    redis_pid: int

    def folder(self) -> str:
        """Return a new folder in memory."""
        parent = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # a new folder in it
        return self.stack.enter_context(tempfile.TemporaryDirectory(dir=parent))

    def spawn(self, arguments: Sequence[str], port: int) -> int:
        """Start a program that listens on *port*; return its process id."""
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=child_environment() | {"GRADIO_ANALYTICS_ENABLED": "False"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.stack.callback(_stop, process)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return process.pid
            time.sleep(0.1)
        sys.exit(f"{arguments[0]} does not start: {' '.join(arguments)}")

    def python(self, name: str, max_bytes: int) -> Running:
        """Start an application of ``benchmarks.peer_servers``."""
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.peer_servers", name, str(port)]
        pid = self.spawn([*command, str(max_bytes), self.folder(), self.redis_url], port)
        uses_redis = name in {"library", "redis"}
        return Running(port, (pid, self.redis_pid) if uses_redis else (pid,))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Return a port that nobody uses."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of processes and their children."""
    ticks, children = 0, dict[int, list[int]]()
    times = dict[int, int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            pid = int(path.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            times[pid] = int(fields[11]) + int(fields[12])
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        ticks += times.get(pid, 0)
        waiting.extend(children.get(pid, []))
    return ticks / os.sysconf("SC_CLK_TCK")


# Watching


def ask(
    running: Running, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a response."""
    with closing(HTTPConnection("127.0.0.1", running.port, timeout=10)) as connection:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, response.read()


def poll(
    stop: threading.Event, read: Callable[[], tuple[int | None, str] | None]
) -> Iterator[Shown]:
    """Yield what *read* returns, four times a second."""
    while not stop.wait(POLL_SECONDS):
        with suppress(OSError, HTTPException):
            found = read()
            if found is not None:
                yield Shown(time.monotonic(), *found)


def stream(
    running: Running, path: str, stop: threading.Event
) -> Iterator[tuple[float, dict[str, object]]]:
    """Yield the data of an event stream, which is opened again until it exists."""
    while not stop.is_set():
        with closing(socket.create_connection(("127.0.0.1", running.port))) as connection:
            connection.settimeout(POLL_SECONDS)
            connection.sendall(request_head("GET", path, accept="text/event-stream"))
            buffer, is_open = b"", True
            while is_open and not stop.is_set():
                with suppress(TimeoutError):
                    received = connection.recv(65536)
                    buffer, is_open = buffer + received, bool(received)
                    *lines, buffer = buffer.split(b"\n")
                    for line in lines:
                        if line.startswith(b"data: {"):
                            yield time.monotonic(), json.loads(line[6:])
        stop.wait(POLL_SECONDS / 5)


def watch_nothing(_running: Running, _id: str, _stop: threading.Event) -> Iterator[Shown]:
    """Show nothing."""
    return iter(())


def watch_library(running: Running, upload_id: str, stop: threading.Event) -> Iterator[Shown]:
    """Read the event stream of an upload."""
    for at, data in stream(running, f"/uploads/{upload_id}/progress", stop):
        yield Shown(at, int(str(data["bytes_transferred"])), str(data["state"]))


def watch_redis(running: Running, upload_id: str, stop: threading.Event) -> Iterator[Shown]:
    """Poll the number that is in Redis."""

    def read() -> tuple[int | None, str]:
        received = json.loads(ask(running, "GET", f"/progress?id={upload_id}")[2])["received"]
        return received, "a number"

    return poll(stop, read)


def watch_gradio(running: Running, upload_id: str, stop: threading.Event) -> Iterator[Shown]:
    """Read the event stream of Gradio, whose events are differences."""
    path, total = f"/gradio_api/upload_progress?upload_id={upload_id}", 0
    for at, data in stream(running, path, stop):
        total += int(str(data.get("chunk_size", 0)))
        yield Shown(at, total, str(data["msg"]))


def watch_nginx(running: Running, upload_id: str, stop: threading.Event) -> Iterator[Shown]:
    """Poll the report of the module."""

    def read() -> tuple[int | None, str]:
        data = json.loads(ask(running, "GET", "/progress", {"X-Progress-ID": upload_id})[2])
        status = f" {data['status']}" if "status" in data else ""
        return data.get("received"), data["state"] + status

    return poll(stop, read)


LOCATIONS: dict[str, str] = {}
"""The paths of tus uploads by id."""


def watch_offset(running: Running, upload_id: str, stop: threading.Event) -> Iterator[Shown]:
    """Poll the offset of a tus upload."""

    def read() -> tuple[int | None, str] | None:
        if upload_id not in LOCATIONS:
            return None
        status, headers, _ = ask(running, "HEAD", LOCATIONS[upload_id], {"Tus-Resumable": "1.0.0"})
        offset = headers.get("upload-offset")
        return None if offset is None else int(offset), str(status)

    return poll(stop, read)


def watch_hooks(running: Running, upload_id: str, stop: threading.Event) -> Iterator[Shown]:
    """Yield what the hooks of tusd have said."""
    assert running.hooks is not None
    count = 0
    while not stop.wait(POLL_SECONDS / 5):
        known = running.hooks.shown.get(LOCATIONS.get(upload_id, "").rpartition("/")[2], [])
        yield from known[count:]
        count = len(known)


# Requests


def put(running: Running, upload_id: str, size: int) -> Request:
    """Send the file as the body of a PUT."""
    path = f"/file?id={upload_id}&upload_id={upload_id}"
    return Request(request_head("PUT", path, content_length=size))


def post(running: Running, upload_id: str, size: int) -> Request:
    """Send the file as the body of a POST."""
    path = f"/file?X-Progress-ID={upload_id}"
    return Request(request_head("POST", path, content_length=size))


def form(running: Running, upload_id: str, size: int) -> Request:
    """Send the file in a form."""
    disposition = 'Content-Disposition: form-data; name="files"; filename="file.bin"'
    prefix = f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
    suffix = f"\r\n--{BOUNDARY}--\r\n".encode()
    head = request_head(
        "POST",
        f"/gradio_api/upload?upload_id={upload_id}",
        content_length=len(prefix) + size + len(suffix),
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
    )
    return Request(head, prefix, suffix)


class CreationRefused(Exception):
    """The server has refused the creation of an upload."""


def patch(running: Running, upload_id: str, size: int, *, path: str) -> Request:
    """Create a tus upload, and send the file as the body of one PATCH."""
    name = b64encode(upload_id.encode()).decode()
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(size)}
    # tuspyserver answers no question about an upload without a type.
    described = f"filename {name},filetype {b64encode(b'application/octet-stream').decode()}"
    metadata = {"Upload-Metadata": described, "Content-Length": "0"}
    status, found, _ = ask(running, "POST", path, headers | metadata)
    if status != 201:
        raise CreationRefused(status)
    location = "/" + found["location"].partition("://")[2].partition("/")[2]
    LOCATIONS[upload_id] = location
    head = request_head(
        "PATCH",
        location,
        content_length=size,
        content_type="application/offset+octet-stream",
        tus_resumable="1.0.0",
        upload_offset=0,
    )
    return Request(head)


# Servers


NGINX_CONFIGURATION = """\
load_module {module};
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upload_progress peers 1m;
  server {{
    listen 127.0.0.1:{port};
    location /file {{
      proxy_pass http://127.0.0.1:{backend}; proxy_http_version 1.1; track_uploads peers 30s;
    }}
    location = /progress {{ report_uploads peers; upload_progress_json_output; }}
  }}
}}
"""


def start_nginx(tools: Tools, max_bytes: int) -> Running:
    """Start nginx with the module in front of the bare application."""
    backend, port, folder = tools.python("bare", max_bytes), free_port(), tools.folder()
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX_CONFIGURATION.format(
        module=NGINX_MODULE, folder=folder, user=user, port=port, backend=backend.port
    )
    path = Path(folder, "nginx.conf")
    path.write_text(text, encoding="ascii")
    nginx = shutil.which("nginx") or "nginx"
    pid = tools.spawn([nginx, "-p", folder, "-e", f"{folder}/error.log", "-c", str(path)], port)
    return Running(port, (pid, *backend.pids))


def start_tusd(tools: Tools, max_bytes: int) -> Running:
    """Start tusd, which stores files, and reports to hooks every second."""
    hooks, port = Hooks(), free_port()
    tools.stack.enter_context(hooks.serve())
    arguments = {
        "-host": "127.0.0.1",
        "-port": str(port),
        "-upload-dir": tools.folder(),
        "-max-size": str(max_bytes),
        "-hooks-http": f"http://127.0.0.1:{hooks.port}/",
        "-hooks-enabled-events": "post-receive,post-finish",
    }
    program = shutil.which("tusd") or "tusd"
    command = [program, *(f"{name}={value}" for name, value in arguments.items())]
    return Running(port, (tools.spawn(command, port),), hooks)


PEERS = (
    Peer(
        name="bare",
        title="Starlette alone",
        keeps="drops the bytes",
        watched="–",
        cannot="shows nothing",
        start=lambda tools, limit: tools.python("bare", limit),
        request=put,
        watch=watch_nothing,
    ),
    Peer(
        name="library",
        title="upload-progress, with Redis",
        keeps="drops the bytes",
        watched="event stream",
        cannot="store files",
        start=lambda tools, limit: tools.python("library", limit),
        request=put,
        watch=watch_library,
    ),
    Peer(
        name="redis",
        title="a write to Redis per chunk",
        keeps="drops the bytes",
        watched="polling, 4/s",
        cannot="tell how an upload ended, push, protect ids, protect uploads from a slow Redis",
        start=lambda tools, limit: tools.python("redis", limit),
        request=put,
        watch=watch_redis,
    ),
    Peer(
        name="nginx",
        title="nginx upload-progress module 0.9.2, and Starlette",
        keeps="buffers, then drops the bytes",
        watched="polling, 4/s",
        cannot="push, list, follow PUT or chunked bodies, show processing, serve several machines",
        install="apt-get install nginx libnginx-mod-http-uploadprogress",
        is_installed=lambda: NGINX_MODULE.exists() and bool(shutil.which("nginx")),
        start=start_nginx,
        request=post,
        watch=watch_nginx,
    ),
    Peer(
        name="gradio",
        title="Gradio",
        keeps="parses the form, writes and hashes a file",
        watched="event stream",
        cannot="serve two watchers of one upload or several processes, tell how an upload ended",
        install="pip install gradio",
        is_installed=lambda: find_spec("gradio") is not None,
        start=lambda tools, limit: tools.python("gradio", limit),
        request=form,
        watch=watch_gradio,
    ),
    Peer(
        name="tuspyserver",
        title="tuspyserver, one PATCH",
        keeps="writes a file",
        watched="polling, 4/s",
        cannot="push, list, show processing, follow a request that is not tus",
        install="pip install tuspyserver",
        is_installed=lambda: find_spec("tuspyserver") is not None,
        start=lambda tools, limit: tools.python("tuspyserver", limit),
        request=partial(patch, path="/files/"),
        watch=watch_offset,
    ),
    Peer(
        name="tusd",
        title="tusd, one PATCH",
        keeps="writes a file",
        watched="hooks of the server",
        cannot="push to a browser, list, show processing, follow a request that is not tus",
        install="go install github.com/tus/tusd/v2/cmd/tusd@latest",
        is_installed=lambda: bool(shutil.which("tusd")),
        start=start_tusd,
        request=partial(patch, path="/files/"),
        watch=watch_hooks,
    ),
)
