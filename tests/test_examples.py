"""Each example runs as its docstring says, with real servers and real uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import boto3
import httpx2
import msgspec
import pytest
from attrs import evolve

from benchmarks.sample_snapshot import sample_snapshot
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from upload_progress import CloudEvent, UploadState
from upload_progress._model.cloudevents import event_of
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.publisher import PostgresPublisher
from upload_progress.backends.rabbitmq import RabbitPublisher
from upload_progress.backends.redis.publisher import RedisPublisher

EXAMPLES = ROOT / "examples"
BODY = os.urandom(3_000_000)
RUN_SECONDS = 60
MAX_POLLS = 2000


@contextmanager
def running_example(name: str, *options: str) -> Iterator[httpx2.Client]:
    """Run an example server on a free port; yield an HTTP client for it."""
    with (
        run_python_server(f"examples/{name}", "--port", "0", *options, cwd=ROOT) as url,
        httpx2.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def basic_credentials(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{user}".encode()).decode()


def run(name: str, *arguments: str) -> list[str]:
    """Run an example to its end; return the lines that it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_SECONDS, check=True
    )
    return process.stdout.splitlines()


def test_every_example_is_tested() -> None:
    here = Path(__file__)
    tests = [here, *(here.parent / "clients").glob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    programs = [path for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text("utf-8")]

    assert programs
    assert all(f'"{path.name}"' in text for path in programs)


# --- quickstart -----------------------------------------------------------------------------------


def test_readme_contains_the_quickstart_with_at_most_12_statements() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    example = (EXAMPLES / "quickstart.py").read_text(encoding="utf-8")
    imports = ("from ", "import ", '"""')
    statements = [line for line in code.splitlines() if line and not line.startswith(imports)]

    assert example.partition("\nif __name__")[0] == code
    assert len(statements) <= 12


def wait_for_bytes(client: httpx2.Client, upload_id: str, size_bytes: int) -> dict[str, object]:
    """Poll until the server has received *size_bytes*; return that snapshot."""
    snapshots = (client.get(f"/uploads/{upload_id}/progress").json() for _ in range(MAX_POLLS))
    return next(each for each in snapshots if each.get("bytes_transferred") == size_bytes)


def body_in_parts(client: httpx2.Client, upload_id: str, states: list[object]) -> Iterator[bytes]:
    """Yield the body in three parts; in between, wait until the server reports the sent bytes."""
    for end in (1_000_000, 2_000_000):
        yield BODY[end - 1_000_000 : end]
        states.append(wait_for_bytes(client, upload_id, end)["state"])
    yield BODY[2_000_000:]


@pytest.mark.parametrize("name", ["quickstart.py", "plain_asgi.py"])
def test_progress_is_reported_during_an_upload(name: str) -> None:
    upload_id = str(uuid.uuid4())
    states: list[object] = []
    with running_example(name) as client, httpx2.Client(base_url=client.base_url) as other:
        sent = client.put(
            "/files/big.bin",
            content=body_in_parts(other, upload_id, states),
            headers={"Upload-Id": upload_id, "Content-Length": str(len(BODY))},
        )
        end = client.get(f"/uploads/{upload_id}/progress").json()
        missing = client.get(f"/uploads/{uuid.uuid4()}/progress")

    assert (sent.status_code, sent.headers["upload-id"]) == (200, upload_id)
    assert str(len(BODY)) in sent.text
    assert states == ["receiving", "receiving"]
    assert (end["state"], end["percent"]) == ("completed", 100.0)
    assert missing.status_code == 404


SERVERS = ("generic_put.py", "pypi_server.py", "oci_registry.py", "tus_server.py", "s3_gateway.py")


@pytest.mark.parametrize("name", SERVERS)
def test_example_server_starts_and_requires_authentication(name: str, tmp_path: Path) -> None:
    with running_example(name, "--data", str(tmp_path)) as client:
        anonymous = client.get("/uploads/progress")
        alice = client.get("/uploads/progress", auth=("alice", "alice"))

    assert anonymous.status_code == 401
    assert (alice.status_code, alice.json()["uploads"]) == (200, [])


# --- FastAPI --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fastapi() -> Iterator[httpx2.Client]:
    with running_example("fastapi_app.py") as client:
        client.headers["authorization"] = basic_credentials("alice")
        yield client


def test_async_endpoint_of_fastapi_reports_a_stage(fastapi: httpx2.Client) -> None:
    sent = fastapi.put("/files/big.bin", content=BODY, headers={"Upload-Id": "one"})
    progress = fastapi.get("/uploads/one/progress").json()

    digest = hashlib.sha256(BODY).hexdigest()
    assert sent.json() == {"name": "big.bin", "sha256": digest}
    assert progress["state"] == "completed"
    assert progress["metadata"] == {"sha256": digest}


def test_sync_endpoint_of_fastapi_is_tracked(fastapi: httpx2.Client) -> None:
    # One message: the file name is found if the first message contains the first part's header.
    form = fastapi.build_request("POST", "/forms", files={"file": ("form.bin", BODY)})
    content_type = {"content-type": form.headers["content-type"]}
    sent = fastapi.post("/forms", content=form.read(), headers=content_type)
    progress = fastapi.get(f"/uploads/{sent.headers['upload-id']}/progress").json()

    assert sent.json() == {"name": "form.bin", "bytes": len(BODY)}
    assert (progress["state"], progress["filename"]) == ("completed", "form.bin")
    assert progress["total_bytes"] > len(BODY)


def test_fastapi_hides_uploads_from_other_users(fastapi: httpx2.Client) -> None:
    fastapi.put("/files/a", content=b"a", headers={"Upload-Id": "hers"})

    other_user = fastapi.get(
        "/uploads/hers/progress", headers={"authorization": basic_credentials("bob")}
    )
    unknown_users = [
        fastapi.get("/uploads/hers/progress", headers={"authorization": credentials})
        for credentials in ("Basic eDp5", "Basic eDo=")
    ]

    assert other_user.status_code == 404
    assert [each.status_code for each in unknown_users] == [401, 401]


def test_fastapi_mounts_the_progress_routes(fastapi: httpx2.Client) -> None:
    created = fastapi.post("/uploads", json={"filename": "later.txt", "total_bytes": 5})

    assert created.status_code == 201
    assert created.headers["location"] == f"/uploads/{created.json()['upload_id']}/progress"


# --- tasks ----------------------------------------------------------------------------------------


def upload_to_task(http: httpx2.Client, upload_id: str) -> None:
    """Upload the file, which the server passes to a task."""
    credentials = {"authorization": basic_credentials("alice")}
    http.headers.update(credentials)
    answer = http.put("/files/a.bin", content=BODY, headers={"upload-id": upload_id})
    assert answer.status_code == 202


def snapshots_of(http: httpx2.Client, upload_id: str) -> Iterator[dict[str, Any]]:
    """Yield the snapshots of an upload up to its end, as polls return them."""
    snapshot: dict[str, Any] = {"state": "processing"}
    while snapshot["state"] in {"processing", "failed"}:
        snapshot = http.get(f"/uploads/{upload_id}/progress", params={"wait": "1"}).json()
        yield snapshot


def test_process_without_python_reports() -> None:
    with running_example("worker_process.py") as http:
        upload_to_task(http, "one")
        seen = list(snapshots_of(http, "one"))

    stages = [each["stage"] for each in seen if each["stage"]]
    assert {each["name"] for each in stages} == {"scanning"}
    assert {each["total"] for each in stages} == {len(BODY)}
    assert (seen[-1]["state"], seen[-1]["attempt"]) == ("completed", 1)


@contextmanager
def running_queue(redis_url: str, folder: Path) -> Iterator[int]:
    """Run a worker of Celery with one process for tasks; yield its process id."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "--app",
        "celery_app.queue",
        "worker",
        "--loglevel=ERROR",
    ]
    environment = {**os.environ, "REDIS_URL": redis_url, "FOLDER": str(folder)}
    with subprocess.Popen(command, cwd=EXAMPLES, env=environment) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def children_of(process_id: int) -> list[int]:
    """Return the processes that a process has started."""
    names = Path(f"/proc/{process_id}/task/{process_id}/children").read_text(encoding="utf-8")
    return [int(name) for name in names.split()]


def test_task_of_celery_that_is_killed_is_started_again(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows the upload as processing, as the next attempt, and as completed."""
    url = f"{redis_url.rpartition('/')[0]}/7"
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("SECONDS_PER_BLOCK", "1.5")
    with running_queue(url, tmp_path) as queue, running_example("celery_app.py") as http:
        upload_to_task(http, "one")
        snapshots = snapshots_of(http, "one")
        first = next(each for each in snapshots if each["stage"] and each["stage"]["done"])
        [task] = children_of(queue)
        os.kill(task, signal.SIGKILL)
        seen = [first, *snapshots]

    assert first["attempt"] == 1
    assert seen[-1]["metadata"] == {"sha256": hashlib.sha256(BODY).hexdigest()}
    assert (seen[-1]["state"], seen[-1]["attempt"]) == ("completed", 2)
    assert {each["bytes_transferred"] for each in seen} == {len(BODY)}


# --- gateways -------------------------------------------------------------------------------------


def test_gateway_shows_what_is_stored_while_the_upload_arrives(tmp_path: Path) -> None:
    """The second hop is slower: it is behind the first one, and never before it."""
    with ExitStack() as stack:
        storage = stack.enter_context(running_example("generic_put.py", "--data", str(tmp_path)))
        options = ("--storage", f"{storage.base_url}".rstrip("/") + "/files")
        slow = ("--bytes-per-second", "2000000")
        http = stack.enter_context(running_example("forward.py", *options, *slow))
        threads = stack.enter_context(ThreadPoolExecutor())
        http.headers["authorization"] = basic_credentials("alice")
        headers = {"upload-id": "one"}
        sent = threads.submit(http.put, "/files/a.bin", content=BODY, headers=headers)
        seen = []
        while not sent.done():
            answer = http.get("/uploads/one/progress", params={"wait": "1"})
            seen += [answer.json()] if answer.status_code == 200 else []
        end = http.get("/uploads/one/progress").json()
        stored = storage.get("/files/a.bin", headers=dict(http.headers))

    hops = [(each["bytes_transferred"], each["stored_bytes"] or 0) for each in [*seen, end]]
    assert sent.result().is_success
    assert all(second <= first for first, second in hops)
    assert any(0 < second < first for first, second in hops)
    assert (end["state"], hops[-1]) == ("completed", (len(BODY), len(BODY)))
    assert stored.content == BODY


def test_gateway_stores_in_s3_what_has_arrived_so_far() -> None:
    """The second hop begins before the first one has ended."""
    first, rest = os.urandom(6_000_000), os.urandom(1_000_000)
    seen: list[dict[str, Any]] = []

    def body(other: httpx2.Client) -> Iterator[bytes]:
        yield first
        polls = (other.get("/uploads/one/progress").json() for _ in range(MAX_POLLS))
        seen.append(next(each for each in polls if each["stored_bytes"]))
        yield rest

    with ExitStack() as stack:
        s3_url = stack.enter_context(run_python_server("-m", "moto.server", "-p", "0"))
        options = ("--s3", s3_url, "--bytes-per-second", "8000000")
        http = stack.enter_context(running_example("forward_to_s3.py", *options))
        credentials = {"authorization": basic_credentials("alice")}
        http.headers.update(credentials)
        other = stack.enter_context(httpx2.Client(base_url=http.base_url, headers=credentials))
        headers = {"upload-id": "one", "content-length": str(len(first + rest))}
        sent = http.put("/files/a.bin", content=body(other), headers=headers)
        end = http.get("/uploads/one/progress").json()
        page = http.get("/")
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        s3 = boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1", **keys)
        stored = s3.get_object(Bucket="files", Key="a.bin")["Body"].read()

    assert (sent.status_code, page.status_code) == (201, 200)
    assert seen[0]["state"] == "receiving"
    assert 0 < seen[0]["stored_bytes"] <= seen[0]["bytes_transferred"] == len(first)
    assert (end["state"], end["stored_bytes"]) == ("completed", len(first + rest))
    assert stored == first + rest


# --- without HTTP ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_copy_is_tracked(tmp_path: Path, backend: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BODY)

    lines = run("without_http.py", str(source), str(target), "--backend", backend)

    assert target.read_bytes() == BODY
    assert lines[-1].split() == ["completed", "100.0", "%", str(len(BODY)), "bytes"]


def test_events_are_published() -> None:
    events = [msgspec.json.decode(line, type=CloudEvent) for line in run("publish_events.py")]

    assert events[-1].data.state == "completed"
    assert events[-1].owner == "alice"
    assert json.loads(run("publish_events.py")[-1])["specversion"] == "1.0"


Publisher = RedisPublisher | PostgresPublisher | RabbitPublisher | KafkaPublisher


@pytest.mark.parametrize(
    ("name", "service", "open_publisher"),
    [
        ("consume_redis.py", "redis_url", RedisPublisher.open),
        ("consume_postgres.py", "postgres_url", PostgresPublisher.open),
        ("consume_rabbitmq.py", "amqp_url", RabbitPublisher.open),
        ("consume_kafka.py", "kafka_url", KafkaPublisher.open),
    ],
)
def test_events_are_consumed_without_upload_progress(
    name: str,
    service: str,
    open_publisher: Callable[[str], Publisher],
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue(service)
    completed = evolve(sample_snapshot(), state=UploadState.COMPLETED)
    command = [sys.executable, str(EXAMPLES / name), url.removeprefix("kafka://")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:

        async def publish() -> None:
            async with open_publisher(url) as publisher:
                with anyio.fail_after(RUN_SECONDS):
                    while consumer.poll() is None:
                        await publisher.publish([event_of("alice", completed, "/uploads")])
                        await anyio.sleep(0.05)

        try:
            anyio.run(publish)
        finally:
            consumer.kill()
        output, _ = consumer.communicate(timeout=RUN_SECONDS)
    assert output.split() == ["alice", completed.upload_id, "completed"]
    assert consumer.returncode == 0
