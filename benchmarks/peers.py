"""The same uploads through this library and through others that show the progress of uploads.

    python -m benchmarks.peers              print the table
    python -m benchmarks.peers --markdown   the same for docs/generated/peers.md

All servers run at the same time, and their uploads are interleaved: compare ratios. First there are
uploads as fast as possible, for the processor time of the server and the time of the client; then a
paced one, of which each chunk is looked for in what a watcher sees; then one that the server
refuses. A peer that is not installed is left out, and the line that installs it is printed. Takes
two minutes on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from statistics import fmean

from attrs import define, field
from redis import Redis

from benchmarks.harness import (
    percentile,
    restart_with_pinned_allocator,
    rotate,
)
from benchmarks.peer_setups import (
    PEERS,
    CreationRefused,
    Peer,
    Request,
    Running,
    Shown,
    Tools,
    cpu_seconds,
)
from benchmarks.store_throughput import running_backend
from tests._support.server_factories import redis

SIZE_BYTES = 256 << 20
ROUNDS = 4
BLOCK = bytes(1 << 20)
PACED_CHUNK = bytes(128 << 10)
PACED_CHUNKS = 64
PACE_SECONDS = 0.05
AFTER_SECONDS = 1.5
SMALL_LIMIT_BYTES = 1 << 20


@define
class Result:
    """What was measured of a peer."""

    cpu: list[float] = field(factory=list)
    seconds: list[float] = field(factory=list)
    latencies: list[float] = field(factory=list)
    unseen: int = 0
    error_bytes: int | None = None
    last: str = "nothing"
    refused: str = ""


@contextmanager
def watching(peer: Peer, running: Running, upload_id: str) -> Iterator[list[Shown]]:
    """Collect what a watcher sees, in a thread."""
    stop, shown = threading.Event(), list[Shown]()

    def collect() -> None:
        for each in peer.watch(running, upload_id, stop):
            shown.append(each)  # the list is read meanwhile

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield shown
    finally:
        stop.set()
        thread.join()


def send(
    running: Running, request: Request, blocks: Sequence[bytes], pace_seconds: float = 0.0
) -> tuple[int, list[float]]:
    """Send a file; return the status, and when each block was sent."""
    sent_at = []
    with closing(socket.create_connection(("127.0.0.1", running.port), timeout=60)) as connection:
        connection.sendall(request.head + request.prefix)
        for block in blocks:
            sent_at.append(time.monotonic())
            with suppress(ConnectionError):
                connection.sendall(block)
            if pace_seconds:
                time.sleep(pace_seconds)
        with suppress(ConnectionError):
            connection.sendall(request.suffix)
        response = connection.recv(65536)
    return int(response.split(b" ", 2)[1]) if response else 0, sent_at


def measure_speed(peer: Peer, running: Running, number: int, result: Result) -> None:
    """Upload as fast as possible, with a watcher."""
    upload_id = f"fast-{peer.name}-{number}"
    with watching(peer, running, upload_id):
        before, started = cpu_seconds(running.pids), time.perf_counter()
        request = peer.request(running, upload_id, SIZE_BYTES)
        status, _ = send(running, request, [BLOCK] * (SIZE_BYTES // len(BLOCK)))
        seconds = time.perf_counter() - started
        if not 200 <= status < 300:
            sys.exit(f"{peer.title}: status {status}")
        time.sleep(0.2)
        used = cpu_seconds(running.pids) - before
    if number:
        result.cpu.append(used * (1 << 30) / SIZE_BYTES)
        result.seconds.append(seconds)


def measure_truth(peer: Peer, running: Running, result: Result) -> None:
    """Upload slowly, and compare what a watcher sees with what was sent."""
    upload_id = f"paced-{peer.name}"
    with watching(peer, running, upload_id) as shown:
        total = PACED_CHUNKS * len(PACED_CHUNK)
        request = peer.request(running, upload_id, total)
        _, sent_at = send(running, request, [PACED_CHUNK] * PACED_CHUNKS, PACE_SECONDS)
        time.sleep(AFTER_SECONDS)
    for number, at in enumerate(sent_at, start=1):
        wanted = number * len(PACED_CHUNK)
        seen = [each.at for each in shown if (each.size_bytes or 0) >= wanted]
        if seen:
            result.latencies.append(max(0.0, min(seen) - at))
        else:
            result.unseen += 1
    known = [each.size_bytes for each in shown if each.size_bytes is not None]
    if known:
        result.error_bytes = max(known) - total
    if shown:
        result.last = shown[-1].state


def measure_refusal(peer: Peer, running: Running, result: Result) -> None:
    """Upload what the server refuses, and see what is shown."""
    upload_id, blocks = f"refused-{peer.name}", [PACED_CHUNK] * 16
    with watching(peer, running, upload_id) as shown:
        try:
            request = peer.request(running, upload_id, len(blocks) * len(PACED_CHUNK))
            status, _ = send(running, request, blocks, PACE_SECONDS)
        except CreationRefused as refusal:
            result.refused = f"{refusal} at its creation: nothing"
            return
        time.sleep(AFTER_SECONDS)
    states = [each.state for each in shown]
    last = shown[-1].size_bytes if shown else None
    seen = "nothing" if not states else states[-1]
    amount = "" if last is None else f", {100 * last / (len(blocks) * len(PACED_CHUNK)):.0f} %"
    result.refused = f"{status}: {seen}{amount}"


def table(results: dict[str, Result]) -> list[list[str]]:
    """Return the table."""
    bare = results["bare"]
    rows = [
        [
            *("server", "it", "server CPU per GiB", "ratio", "client, 256 MiB", "watched by"),
            *("byte to watcher, p50", "maximum", "last value shown", "state after the end"),
            *("shown when refused", "it cannot"),
        ]
    ]
    for peer in PEERS:
        if peer.name in results:
            each = results[peer.name]
            rows.append(
                [
                    *(peer.title, peer.keeps, f"{fmean(each.cpu):.2f} s"),
                    f"{fmean(each.cpu) / fmean(bare.cpu):.2f}",
                    f"{min(each.seconds):.2f} s",
                    peer.watched,
                    *_latency(each),
                    _error(each),
                    each.last,
                    each.refused,
                    peer.cannot,
                ]
            )
    return rows


def _latency(result: Result) -> list[str]:
    if not result.latencies:
        return ["never", "never"]
    p50 = f"{1000 * percentile(result.latencies, 0.5):.0f} ms"
    if result.unseen:
        return [p50, f"{100 * result.unseen / PACED_CHUNKS:.0f} % of the bytes are never shown"]
    return [p50, f"{1000 * max(result.latencies):.0f} ms"]


def _error(result: Result) -> str:
    if result.error_bytes is None:
        return "none"
    return "all bytes" if not result.error_bytes else f"{result.error_bytes:+,} B"


def measure(installed: Sequence[Peer]) -> dict[str, Result]:
    """Measure all peers, interleaved."""
    results = {peer.name: Result() for peer in installed}
    by_name = {peer.name: peer for peer in installed}
    with running_backend(redis) as url, Redis.from_url(url) as client:
        pid = client.info("server")["process_id"]
        with ExitStack() as stack:
            tools = Tools(stack, url, pid)
            servers = {each.name: each.start(tools, SIZE_BYTES) for each in installed}
            for number in range(ROUNDS + 1):
                for name in rotate(list(servers), number):
                    measure_speed(by_name[name], servers[name], number, results[name])
            for name, running in servers.items():
                measure_truth(by_name[name], running, results[name])
        with ExitStack() as stack:
            tools = Tools(stack, url, pid)
            for each in installed:
                running = each.start(tools, SMALL_LIMIT_BYTES)
                measure_refusal(each, running, results[each.name])
    return results


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    arguments = parser.parse_args()
    restart_with_pinned_allocator()
    for peer in PEERS:
        if not peer.is_installed():
            print(f"{peer.title} is left out: {peer.install}", file=sys.stderr)
    load_average = os.getloadavg()[0]
    head, *rows = table(measure([peer for peer in PEERS if peer.is_installed()]))
    note = f"Other programs of the machine had used {load_average:.1f} processors before the run."
    if arguments.markdown:
        lines = [head, ["---"] * len(head), *rows]
        print("\n".join(f"| {' | '.join(row)} |" for row in lines))
        print(f"\n{note}")
        return
    for row in rows:
        print("\n".join(f"{name}: {cell}" for name, cell in zip(head, row, strict=True)), "\n")
    print(note)


if __name__ == "__main__":
    main()
