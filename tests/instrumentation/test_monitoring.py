"""A real Prometheus scrapes a real run; the alert rules and the dashboard fit to its metrics."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio import to_thread
from attrs import define, field
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from docs.dashboard import PANELS
from tests._support.paths import ROOT
from tests._support.server_processes import ServerProcess, free_port, new_folder, responds_to
from tests.conftest import RequireProgram
from tests.instrumentation.traffic import SENT, send_uploads
from upload_progress import ProgressTracker
from upload_progress.instrumentation.prometheus import ProgressCollector

ALERTS = ROOT / "examples" / "monitoring" / "alerts.yaml"
PREFIX = "upload_progress_"
INSTALL = "on Debian: apt-get install prometheus"
CONFIG = """\
global: {{ scrape_interval: 250ms, scrape_timeout: 250ms }}
rule_files: ["{alerts}"]
scrape_configs:
  - job_name: files
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""


@pytest.fixture
def promtool(require_program: RequireProgram) -> str:
    return require_program("promtool", install=INSTALL)


def run(*command: str, content: bytes = b"") -> str:
    """Run a program; return its output. Fail the test if it fails."""
    result = subprocess.run(
        command,
        check=False,
        input=content,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
    )
    output = result.stdout.decode()
    assert result.returncode == 0, output
    return output


def test_alert_rules_are_valid(promtool: str) -> None:
    assert "8 rules found" in run(promtool, "check", "rules", str(ALERTS))


def test_alerts_fire_when_they_should(promtool: str) -> None:
    """Each rule is tested with a series that it is for."""
    cases = Path(__file__).with_name("alerts.test.yaml")
    tested = set(re.findall(r"alertname: (\w+)", cases.read_text(encoding="utf-8")))

    assert tested == set(re.findall(r"alert: (\w+)", ALERTS.read_text(encoding="utf-8")))
    assert "SUCCESS" in run(promtool, "test", "rules", str(cases))


def test_metrics_follow_the_conventions_for_names(promtool: str) -> None:
    registry = CollectorRegistry()
    registry.register(ProgressCollector(ProgressTracker()))

    assert run(promtool, "check", "metrics", content=generate_latest(registry)) == ""


def names_in(text: str) -> set[str]:
    """Return the names of metrics that a query or rule uses."""
    return set(re.findall(rf"{PREFIX}\w+", text))


def test_rules_and_dashboard_use_metrics_that_exist() -> None:
    registry = CollectorRegistry()
    registry.register(ProgressCollector(ProgressTracker()))
    known = {sample.name for family in registry.collect() for sample in family.samples}
    queries = " ".join(query for panel in PANELS for query in panel.queries.values())

    assert names_in(queries) - known == set()
    assert names_in(ALERTS.read_text(encoding="utf-8")) - known == set()


@define(eq=False)
class ScrapeCounter(Collector):
    """Collects from another collector, and lets a thread wait for scrapes."""

    collector: ProgressCollector
    _count: int = field(default=0, init=False)
    _scraped: threading.Condition = field(factory=threading.Condition, init=False)

    def collect(self) -> Iterator[Metric]:
        with self._scraped:
            self._count += 1
            self._scraped.notify_all()
        return self.collector.collect()

    def wait_for_scrapes(self, count: int) -> None:
        """Wait until *count* more scrapes have begun."""
        with self._scraped:
            wanted = self._count + count
            assert self._scraped.wait_for(lambda: self._count >= wanted, timeout=20)


@define(eq=False)
class RunningPrometheus:
    """A Prometheus that scrapes one tracker four times a second."""

    url: str
    scrapes: ScrapeCounter

    async def ask(self, path: str, **parameters: str) -> object:
        """Return the data of an answer of its API."""
        async with httpx2.AsyncClient(base_url=self.url) as client:
            response = await client.get(f"/api/v1/{path}", params=parameters)
        answer = json.loads(response.content)
        assert answer["status"] == "success", answer
        return answer["data"]

    async def value(self, query: str) -> float:
        """Return the only value that a query has now."""
        data = await self.ask("query", query=query)
        assert isinstance(data, dict)
        (sample,) = data["result"]
        return float(sample["value"][1])


@pytest.fixture
def tracker() -> ProgressTracker:
    return ProgressTracker()


@pytest.fixture
def prometheus(
    tracker: ProgressTracker, require_program: RequireProgram
) -> Iterator[RunningPrometheus]:
    program = require_program("prometheus", install=INSTALL)
    registry, counter = CollectorRegistry(), ScrapeCounter(ProgressCollector(tracker))
    registry.register(counter)
    port, metrics_port, folder = free_port(), free_port(), new_folder("prometheus")
    config = folder / "prometheus.yaml"
    config.write_text(CONFIG.format(alerts=ALERTS, port=metrics_port), encoding="utf-8")
    with ExitStack() as stack:
        server, thread = start_http_server(metrics_port, "127.0.0.1", registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        process = ServerProcess(
            name="prometheus",
            url=f"http://127.0.0.1:{port}",
            port=port,
            folder=folder,
            command=[
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            is_ready=lambda: responds_to(port, b"GET /-/ready HTTP/1.0\r\n\r\n"),
        )
        stack.callback(process.stop)
        process.start()
        yield RunningPrometheus(process.url, counter)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_real_prometheus_shows_the_sums_of_a_run(
    tracker: ProgressTracker, prometheus: RunningPrometheus
) -> None:
    """The second scrape after the uploads begins when the first is stored."""
    async with tracker.lifespan():
        with anyio.fail_after(30):
            await send_uploads(tracker)
            await to_thread.run_sync(prometheus.scrapes.wait_for_scrapes, 3)

            assert await prometheus.value("upload_progress_received_bytes_total") == (
                SENT.received_bytes
            )
            assert await prometheus.value("upload_progress_accepted_bytes_total") == (
                SENT.accepted_bytes
            )
            for (state, code), count in SENT.ends.items():
                query = f'upload_progress_uploads_ended_total{{state="{state}", code="{code}"}}'
                assert await prometheus.value(query) == count
            for panel in PANELS:
                for query in panel.queries.values():
                    filled = query.replace("$job", ".+").replace("$__rate_interval", "1m")
                    await prometheus.ask("query", query=filled)
            rules = await prometheus.ask("rules")

    assert isinstance(rules, dict)
    (group,) = rules["groups"]
    assert {rule["name"] for rule in group["rules"]} == set(
        re.findall(r"alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    )
