"""The memory of Python and of a push server that holds streams, and when watchers see an end.

    python -m benchmarks.load.held_streams centrifugo
    python -m benchmarks.load.held_streams pushpin --watchers 19800

Runs the load generator twice, with 20 watchers and with many, against an application with one
worker and a real push server, and prints the table of docs/operations/edge.md. It takes five
minutes, and fails if a watcher has not seen the end of its upload, or has seen a snapshot go back.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from attrs import frozen

from benchmarks.harness import ROOT, child_environment
from tests._support.go_programs import load_generator
from tests._support.server_factories import centrifugo, pushpin
from tests._support.server_processes import ServerProcess, free_port, process_tree, responds_to
from tests.conftest import program_path

FEW = 20
MANY = 19_800
OPENS_PER_SECOND = 220
START_SECONDS = 60
LOAD = "-uploads 100 -size 200000 -rate 10000 -sources 4 -user alice:alice -user bob:bob"
KEY = "0123456789abcdef0123456789abcdef"

find = partial(program_path, required=True)


@frozen
class Setup:
    """A push server in front of, or beside, an application.

    Attributes:
        process: The push server, not started.
        environment: What the application reads.
        options: Those of the load generator.
    """

    process: ServerProcess
    environment: Mapping[str, str]
    options: Sequence[str]


def with_centrifugo(_app_port: int) -> Setup:
    """Return Centrifugo beside the application."""
    process = centrifugo(find, api_key=KEY, token_key=KEY)
    keys = {"API_KEY": KEY, "TOKEN_KEY": KEY}
    return Setup(process, {"CENTRIFUGO_URL": process.url, **keys}, ["-edge"])


def with_pushpin(app_port: int) -> Setup:
    """Return Pushpin in front of the application."""
    port = free_port()
    ports = {"app_port": app_port, "control_port": port}
    process = pushpin(find, **ports, key=KEY, probe="/uploads/progress")
    environment = {"CONTROL_URL": f"http://127.0.0.1:{port}", "SIG_KEY": KEY}
    return Setup(process, environment, [f"-watch={process.url}"])


@contextmanager
def running(
    command: Sequence[str], is_ready: Callable[[], bool], environment: Mapping[str, str]
) -> Iterator[int]:
    """Run a program while the block runs; the value is its process id."""
    with subprocess.Popen(command, env={**child_environment(), **environment}, cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{command[0]} did not start")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()


def run(make: Callable[[int], Setup], watchers: int) -> Mapping[str, Any]:
    """Run the load generator; return its report, with the memory of both at each moment."""
    port = free_port()
    setup = make(port)
    site = [sys.executable, "-m", "uvicorn", "benchmarks.load.site:app", "--log-level=warning"]
    http = b"GET /uploads/progress HTTP/1.0\r\n\r\n"
    with (
        running(
            [*site, f"--port={port}"], lambda: responds_to(port, http), setup.environment
        ) as app,
        running(setup.process.command, setup.process.is_ready, {}) as edge,
    ):
        processes = [app, *process_tree(edge)]
        command = [
            str(load_generator(find)),
            *LOAD.split(),
            *setup.options,
            f"-server=http://127.0.0.1:{port}",
            f"-watchers={watchers}",
            f"-opens={OPENS_PER_SECOND}",
            f"-timeout={120 + watchers // OPENS_PER_SECOND}s",
            f"-pids={','.join(map(str, processes))}",
        ]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    report: dict[str, Any] = json.loads(finished.stdout)
    if finished.returncode:
        sys.exit(finished.stdout)
    memory = report["resident_bytes"]
    report["app"] = memory[str(app)]
    of_edge = [memory[str(each)] for each in processes[1:]]
    report["edge"] = [sum(each) for each in zip(*of_edge, strict=True)]
    return report


def rows(few: Mapping[str, Any], many: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of the table."""

    def megabytes(name: str, phase: str) -> list[str]:
        place = few["resident_bytes_at"].index(phase)
        return [f"{each[name][place] / 1e6:,.1f} MB" for each in (few, many)]

    def seconds(report: Mapping[str, Any]) -> str:
        latency = report["end_latency_ms"]
        return f"{latency['p50'] / 1000:.2f} s, {latency['p99'] / 1000:.2f} s"

    ends = "from the last byte of an upload to the end at its watchers, p50 and p99"
    return [
        ["", *(f"{each['watchers']:,} watchers" for each in (few, many))],
        ["---"] * 3,
        ["resident memory of Python while all streams are open", *megabytes("app", "held")],
        ["the same, after all uploads", *megabytes("app", "after")],
        ["resident memory of the push server", *megabytes("edge", "held")],
        [ends, seconds(few), seconds(many)],
    ]


def main() -> None:
    """Run both, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load.held_streams")
    parser.add_argument("edge", choices=["centrifugo", "pushpin"])
    parser.add_argument("--watchers", type=int, default=MANY)
    arguments = parser.parse_args()
    make = with_centrifugo if arguments.edge == "centrifugo" else with_pushpin
    load_average = os.getloadavg()[0]
    reports = [run(make, each) for each in (FEW, arguments.watchers)]
    print(f"{os.cpu_count()} processors; other programs had used {load_average:.1f} before.\n")
    for row in rows(*reports):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
