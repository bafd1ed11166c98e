"""The picture of the dashboard: its own queries, answered by a Prometheus that scrapes a real run.

``python -m docs.dashboard_picture`` needs the program ``prometheus`` and takes two minutes: a
server receives uploads over HTTP, some of which are refused, fail, are cancelled or watched. The
panels are drawn here, because Grafana is not in the package registries that the project uses.
"""

from __future__ import annotations

import math
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from threading import Thread
from typing import Any, Final

import anyio
import httpx2
import uvicorn
from prometheus_client import CollectorRegistry, start_http_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docs.dashboard import COLUMNS, PANELS, Panel
from upload_progress import ProgressTracker
from upload_progress.asgi import current_upload
from upload_progress.instrumentation.prometheus import ProgressCollector
from upload_progress.starlette import capability, upload_progress_app

SECONDS: Final = 120
STEP_SECONDS: Final = 2
CHUNK_BYTES: Final = 65_536
PICTURE: Final = Path(__file__).parent / "images" / "dashboard.svg"
CONFIG: Final = """\
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: files
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""
COLORS: Final = ("#56a64b", "#3274d9", "#e0b400", "#e02f44", "#8f3bb8", "#ff780a")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 320, 190, 58, 34, 50
STYLE: Final = """
text { font: 10px system-ui, sans-serif; fill: #464c54 }
.title { font-size: 12.5px; font-weight: 600; fill: #1f2329 }
.paper { fill: #f4f5f5 } .panel { fill: #ffffff; stroke: #dcdfe3 }
.grid { stroke: #e6e8eb } .line { fill: none; stroke-width: 1.5 }
"""

Series = list[tuple[str, list[tuple[float, float]]]]


async def receive(request: Request) -> Response:
    """Receive a file, and scan it; its name says whether it is refused or fails."""
    size = sum([len(chunk) async for chunk in request.stream()])
    name = request.path_params["name"]
    if name.startswith("fail"):
        raise ValueError
    async with current_upload(request).stage("scanning", total=4) as stage:
        for _ in range(4):
            await anyio.sleep(size / 60_000_000)
            stage.advance()
    return Response(status_code=422 if name.startswith("refuse") else 200)


async def paced(size: int, bytes_per_second: float) -> AsyncIterator[bytes]:
    """Yield a body at a rate."""
    for _ in range(math.ceil(size / CHUNK_BYTES)):
        yield bytes(CHUNK_BYTES)
        await anyio.sleep(CHUNK_BYTES / bytes_per_second)


async def send_upload(http: httpx2.AsyncClient, number: int, chance: random.Random) -> None:
    """Send one upload; some are watched, and some are left before their end."""
    kind = chance.choices(["ok", "refuse", "fail"], [94, 4, 2])[0]
    upload_id = f"{chance.getrandbits(128):032x}"
    headers = {"upload-id": upload_id}
    body = paced(chance.randrange(300_000, 12_000_000), chance.uniform(0.4e6, 4e6))
    async with anyio.create_task_group() as tasks:
        if chance.choice([True, False]):
            tasks.start_soon(watch, http, f"/uploads/{upload_id}/progress")
        with anyio.move_on_after(chance.choice([3, *[60] * 19])):
            await http.put(f"/files/{kind}-{number}", content=body, headers=headers)


async def watch(http: httpx2.AsyncClient, path: str) -> None:
    """Follow an upload by server-sent events."""
    await anyio.sleep(0.3)
    async with http.stream("GET", path, headers={"accept": "text/event-stream"}) as events:
        async for _ in events.aiter_bytes():
            pass


async def send_uploads(url: str) -> None:
    """Send uploads for two minutes; more of them in the middle."""
    chance = random.Random(7)  # noqa: S311  # not a secret
    began = time.monotonic()
    limits = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(base_url=url, timeout=90, limits=limits) as http,
        anyio.create_task_group() as tasks,
    ):
        number = 0
        while (passed := time.monotonic() - began) < SECONDS:
            tasks.start_soon(send_upload, http, number, chance)
            number += 1
            await anyio.sleep(chance.expovariate(0.6 + 2.4 * math.sin(math.pi * passed / SECONDS)))
        tasks.cancel_scope.cancel()


@contextmanager
def running_server() -> Iterator[tuple[str, ProgressTracker]]:
    """Run the server in a thread."""
    tracker = ProgressTracker()
    site = Starlette(routes=[Route("/files/{name}", receive, methods=["PUT"])])
    app = upload_progress_app(site, authenticate=capability(), tracker=tracker)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", tracker
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@contextmanager
def running_prometheus(folder: Path, metrics_port: int) -> Iterator[str]:
    """Run a Prometheus that scrapes the metrics each second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = folder / "prometheus.yaml"
    config.write_text(CONFIG.format(port=metrics_port), encoding="utf-8")
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data")
    address = f"--web.listen-address=127.0.0.1:{port}"
    program = str(shutil.which("prometheus"))
    command = [program, *options, address]
    with subprocess.Popen(command, stderr=(folder / "log").open("w")) as process:  # noqa: S603  # ours
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def series_of(url: str, panel: Panel, end: float) -> Series:
    """Return the series that the queries of a panel give."""
    found: Series = []
    for legend, query in panel.queries.items():
        asked = query.replace("$job", "files").replace("$__rate_interval", "10s")
        period = {"start": end - SECONDS, "end": end, "step": STEP_SECONDS}
        answer = httpx2.get(f"{url}/api/v1/query_range", params={"query": asked, **period}).json()
        for result in answer["data"]["result"]:
            name = legend
            for label, value in result["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            # A label without a value is not in the answer.
            name = re.sub(r"\{\{\w+\}\}", "", name)
            points = [(at - end, float(text)) for at, text in result["values"]]
            points = [point for point in points if math.isfinite(point[1])]
            if any(value for _, value in points):
                found.append((name.strip(), points))
    return found


def formatted(value: float, unit: str) -> str:
    """Return a value on the axis."""
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    suffix = {"Bps": "B/s", "bytes": "B"}.get(unit, "")
    for prefix, factor in (("M", 1e6), ("k", 1e3)):
        if suffix and value >= factor:
            return f"{value / factor:.3g} {prefix}{suffix}"
    return f"{value:.3g} {suffix}".strip()


def round_up(value: float) -> float:
    """Return the next value of 1, 2, 5, 10, ... that the axis ends with."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value)


def draw_panel(panel: Panel, series: Series, x: int, y: int) -> Iterator[str]:
    """Yield the elements of a panel."""
    width, height = WIDTH - LEFT - 14, HEIGHT - TOP - BOTTOM
    yield f'<g transform="translate({x},{y})">'
    yield f'<rect class="panel" width="{WIDTH}" height="{HEIGHT}" rx="3"/>'
    yield f'<text class="title" x="12" y="20">{escape(panel.title)}</text>'
    highest = round_up(max([value for _, points in series for _, value in points] or [1]))
    for part in (0, 0.5, 1):
        line = TOP + height * (1 - part)
        label = formatted(highest * part, panel.unit) if part else "0"
        yield f'<path class="grid" d="M{LEFT},{line:g}h{width}"/>'
        yield f'<text x="{LEFT - 6}" y="{line + 3:g}" text-anchor="end">{label}</text>'
    for seconds in range(-SECONDS, 1, 60):
        at = LEFT + width * (1 + seconds / SECONDS)
        label = f"{seconds // 60} min" if seconds else "now"
        yield f'<text x="{at:g}" y="{TOP + height + 14}" text-anchor="middle">{label}</text>'
    legend_x, legend_y = LEFT, HEIGHT - 21
    for (name, points), color in zip(series, COLORS, strict=False):
        path = " ".join(
            f"{LEFT + width * (1 + at / SECONDS):.0f},{TOP + height * (1 - value / highest):.1f}"
            for at, value in points
        )
        yield f'<polyline class="line" stroke="{color}" points="{path}"/>'
        size = 22 + 5 * len(name)
        if legend_x + size > WIDTH:
            legend_x, legend_y = LEFT, legend_y + 13
        yield f'<rect x="{legend_x}" y="{legend_y - 4}" width="8" height="3" fill="{color}"/>'
        yield f'<text x="{legend_x + 11}" y="{legend_y}">{escape(name)}</text>'
        legend_x += size
    if not series:
        yield f'<text x="{LEFT + 8}" y="{TOP + height / 2 - 4:g}">0 during this run</text>'
    yield "</g>"


def draw(figures: list[Series]) -> str:
    """Return the picture."""
    gap = 8
    rows = math.ceil(len(PANELS) / COLUMNS)
    size = f"{COLUMNS * (WIDTH + gap) + gap} {rows * (HEIGHT + gap) + gap}"
    label = 'role="img" aria-label="The panels of the dashboard"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {label}>',
        f"<style>{STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    for number, (panel, series) in enumerate(zip(PANELS, figures, strict=True)):
        row, column = divmod(number, COLUMNS)
        lines += draw_panel(panel, series, gap + column * (WIDTH + gap), gap + row * (HEIGHT + gap))
    return "\n".join([*lines, "</svg>"]) + "\n"


def measure() -> list[Series]:
    """Return the series of all panels after a run."""
    registry = CollectorRegistry()
    metrics: Any
    with running_server() as (url, tracker), tempfile.TemporaryDirectory() as folder:
        registry.register(ProgressCollector(tracker))
        metrics, _ = start_http_server(0, "127.0.0.1", registry)
        with running_prometheus(Path(folder), metrics.server_port) as prometheus:
            with suppress(httpx2.TransportError):
                anyio.run(send_uploads, url)
            end = time.time()
            figures = [series_of(prometheus, panel, end) for panel in PANELS]
        metrics.shutdown()
    return figures


if __name__ == "__main__":
    PICTURE.write_text(draw(measure()), encoding="utf-8")
