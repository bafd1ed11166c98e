"""The servers on the page about frameworks, each in a process of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests._support.artifacts import make_wheel
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT

PAGE = (ROOT / "docs/guides/frameworks.md").read_text(encoding="utf-8")


def blocks(attributes: str) -> dict[str, str]:
    """Return the blocks of the page with these attributes, by their titles."""
    block = rf'^``` \{{{re.escape(attributes)} title="(\w+)"\}}\n(.*?)^```$'
    return dict(re.findall(block, PAGE, re.MULTILINE | re.DOTALL))


SERVERS = blocks(".python")
PYPISERVER = blocks(".python .index")["pypiserver"]
AIOHTTP = blocks(".python .program")["aiohttp"]
# Its own start writes the address to standard output.
RUN_AIOHTTP = """
import functools, sys
import app
from aiohttp import web
log = functools.partial(print, file=sys.stderr, flush=True)
web.run_app(app.app, host="127.0.0.1", port=0, print=log)
"""
SIZE = 300_000
MAX_POLLS = 1000
PREFIXES = {"prefix": "/shop"}

DJANGO_FILES = {
    "settings.py": """
SECRET_KEY = "invented"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}
DATA_UPLOAD_MAX_MEMORY_SIZE = None
USE_TZ = True
""",
    "urls.py": """
from django.http import JsonResponse
from django.urls import path
from upload_progress.asgi import current_upload

def receive(request, name):
    current_upload(request).set(metadata={"size": len(request.body)})
    return JsonResponse({})

urlpatterns = [path("files/<name>", receive)]
""",
    "sign_in.py": """
import django
django.setup()
from importlib import import_module
from django.conf import settings
from django.contrib import auth
from django.core.management import call_command
from django.http import HttpRequest

call_command("migrate", verbosity=0)
for name in ("alice", "bob"):
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore()
    auth.login(request, auth.get_user_model().objects.create_user(name))
    request.session.save()
    print(request.session.session_key)
""",
}


def tokens(_url: str, _folder: Path) -> list[dict[str, str]]:
    """Return the headers with which Alice and Bob send requests."""
    return [{"authorization": f"Bearer {name}-token"} for name in ("alice", "bob")]


def starlette_cookies(url: str, _folder: Path) -> list[dict[str, str]]:
    cookies = [httpx2.post(f"{url}/login/{name}").cookies["session"] for name in ("alice", "bob")]
    return [{"cookie": f"session={each}"} for each in cookies]


def django_cookies(_url: str, folder: Path) -> list[dict[str, str]]:
    command = [sys.executable, "sign_in.py"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return [{"cookie": f"sessionid={each}"} for each in done.stdout.split()]


SIGN_IN: dict[str, Callable[[str, Path], list[dict[str, str]]]] = {
    "starlette": starlette_cookies,
    "django": django_cookies,
}


@contextmanager
def running(name: str, folder: Path) -> Iterator[str]:
    for filename, text in {**DJANGO_FILES, "app.py": SERVERS[name]}.items():
        (folder / filename).write_text(text, encoding="utf-8")
    with run_python_server("-m", "uvicorn", "app:app", "--port", "0", cwd=folder) as url:
        yield url


def wait_for_end(url: str, headers: dict[str, str]) -> dict[str, object]:
    """Poll until the upload has ended."""
    snapshots = (httpx2.get(url, headers=headers).json() for _ in range(MAX_POLLS))
    return next(each for each in snapshots if each.get("state") == "completed")


@pytest.mark.parametrize("name", SERVERS)
def test_server_shows_uploads_to_their_owners(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "settings")
    with running(name, tmp_path) as url:
        alice, bob = SIGN_IN.get(name, tokens)(url, tmp_path)
        sent = httpx2.put(
            f"{url}{PREFIXES.get(name, '')}/files/a.bin",
            content=bytes(SIZE),
            headers={**alice, "upload-id": "one"},
        )
        link = f"{PREFIXES.get(name, '')}/uploads/one/progress"
        shown = wait_for_end(url + link, alice)
        statuses = [httpx2.get(url + link, headers=each).status_code for each in (bob, {})]

    # Without a link, if the user was not known within some milliseconds.
    assert (sent.status_code, sent.headers.get("link", link).count(link)) == (200, 1)
    assert (shown["state"], shown["bytes_transferred"]) == ("completed", SIZE)
    assert shown["metadata"] == {"size": SIZE}
    assert statuses == [404, 401]


def test_pypiserver_shows_uploads_of_twine(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "app.py").write_text(PYPISERVER, encoding="utf-8")
    wheel = make_wheel(tmp_path, "large", SIZE)
    publish = (sys.executable, "-m", "twine", "upload", "--disable-progress-bar", str(wheel))
    with run_python_server("-m", "uvicorn", "app:app", "--port", "0", cwd=tmp_path) as url:
        address = f"{url}/?upload_group=release"
        account = ("--repository-url", address, "--username", "alice", "--password")
        refused, _ = (
            subprocess.run([*publish, *account, password], capture_output=True, check=False)
            for password in ("wrong", "alice-secret")
        )
        found = httpx2.get(f"{url}/uploads/progress", auth=("alice", "alice-secret")).json()

    assert refused.returncode != 0
    assert (tmp_path / "packages" / wheel.name).read_bytes() == wheel.read_bytes()
    assert [each["state"] for each in found["uploads"]] == ["completed"]
    assert found["uploads"][0]["group"] == "release"


def test_aiohttp_shows_uploads_to_their_owners_and_that_a_client_has_left(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AIOHTTP, encoding="utf-8")
    with run_python_server("-c", RUN_AIOHTTP, cwd=tmp_path) as url:
        alice, bob = tokens(url, tmp_path)

        def progress(upload_id: str, headers: dict[str, str]) -> httpx2.Response:
            return httpx2.get(f"{url}/uploads/{upload_id}/progress", headers=headers)

        headers = {**alice, "upload-id": "one"}
        sent = httpx2.put(f"{url}/files/a.bin", content=bytes(SIZE), headers=headers)
        shown = progress("one", alice).json()
        statuses = [progress("one", each).status_code for each in (bob, {})]
        leave(url, {**alice, "upload-id": "two", "content-length": "1000"}, b"half")
        polls = (progress("two", alice) for _ in range(MAX_POLLS))
        left = next(each for each in polls if "failed" in each.text).json()

    assert (sent.status_code, statuses) == (200, [404, 401])
    assert (shown["state"], shown["metadata"]) == ("completed", {"size": SIZE})
    assert (left["bytes_transferred"], left["error"]["code"]) == (4, "client_disconnected")


def leave(url: str, headers: dict[str, str], body: bytes) -> None:
    """Send a part of a body, and close the connection."""
    address = httpx2.URL(url)
    lines = ["PUT /files/b.bin HTTP/1.1", "host: x", *(f"{k}: {v}" for k, v in headers.items())]
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def test_page_of_another_origin_may_read_progress(tmp_path: Path) -> None:
    origin = {"origin": "https://app.example"}
    asked = {"access-control-request-method": "DELETE", "access-control-request-headers": "range"}
    with running("cors", tmp_path) as url:
        preflight = httpx2.options(f"{url}/uploads/one", headers={**origin, **asked})
        listed = httpx2.get(
            f"{url}/uploads/progress", headers={**origin, **tokens(url, tmp_path)[0]}
        )

    assert preflight.status_code == 200
    assert listed.headers["access-control-allow-origin"] == origin["origin"]
    assert "Upload-Id" in listed.headers["access-control-expose-headers"]
