"""Real clients against the example servers: uploads in one request.

The owner receives one upload for each file, growing byte counts, and the end; the downloaded file
is the same. The results are a table in the documentation, see ``client_report``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests._support.artifacts import make_image, make_wheel, sha256_of
from tests._support.client_commands import (
    PUBLISH_COMMANDS,
    driver_command,
    skopeo_copy,
    tus_command,
    tus_version,
)
from tests._support.client_report import ClientReport, version_of
from tests._support.upload_watcher import ExampleServer, watch_uploads
from tests.clients.conftest import SIZE


def test_curl(
    curl: list[str], files: ExampleServer, artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    download = tmp_path / "back"
    with watch_uploads(files) as watch:
        watch.run([*curl, "-T", artifact, f"{files.url}/files/curl.bin"])
        watch.run([*curl, "-o", download, f"{files.url}/files/curl.bin"])

    watch.assert_progress()
    is_same = sha256_of(download) == sha256_of(artifact)
    report.add(watch, client=version_of(curl[0]), sends="one PUT", same_content=is_same)


@pytest.mark.parametrize("name", PUBLISH_COMMANDS)
def test_wheel_is_published(
    name: str, index: ExampleServer, tmp_path: Path, report: ClientReport
) -> None:
    project, group, download = f"by_{name}", f"release-of-{name}", tmp_path / "back"
    wheel = make_wheel(tmp_path, project, SIZE)
    publish_command = PUBLISH_COMMANDS[name](f"{index.url}/legacy/?upload_group={group}")
    pip_arguments = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--dest",
        str(download),
    ]
    with watch_uploads(index) as watch:
        watch.run([*publish_command, wheel])
        watch.run([sys.executable, *pip_arguments, "--index-url", f"{index.url}/simple/", project])

    watch.assert_progress()
    [shown] = index.uploads(group)
    assert (shown["filename"], shown["upload_id"]) == (wheel.name, *watch.seen)
    assert int(str(shown["total_bytes"])) > wheel.stat().st_size
    is_same = sha256_of(download / wheel.name) == sha256_of(wheel)
    report.add(
        watch, client=version_of(name), sends="a form (legacy upload API)", same_content=is_same
    )


def test_skopeo(registry: ExampleServer, skopeo: str, tmp_path: Path, report: ClientReport) -> None:
    image, download = tmp_path / "image", tmp_path / "back"
    digest = make_image(image, 3 * SIZE)
    target = f"docker://127.0.0.1:{registry.port}/alice/by-skopeo:1"
    with watch_uploads(registry) as watch:
        watch.run(skopeo_copy(skopeo, "dest", f"oci:{image}:1", target))
        watch.run(skopeo_copy(skopeo, "src", target, f"oci:{download}:1"))

    watch.assert_progress()
    [manifest] = json.loads((download / "index.json").read_text())["manifests"]
    names = [
        {path.name for path in (each / "blobs/sha256").iterdir()} for each in (image, download)
    ]
    is_same = manifest["digest"] == digest and names[0] == names[1]
    report.add(
        watch, client=version_of(skopeo), sends="POST, PATCH, PUT (OCI)", same_content=is_same
    )


def test_oras(
    registry: ExampleServer, large_artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    artifact = large_artifact
    target = f"127.0.0.1:{registry.port}/alice/by-oras-whole:1"
    with watch_uploads(registry) as watch:
        watch.run([*driver_command("oras_push.py"), "whole", target, artifact])
        watch.run([*driver_command("oras_push.py"), "pull", target, tmp_path / artifact.name])

    watch.assert_progress()
    is_same = sha256_of(tmp_path / artifact.name) == sha256_of(artifact)
    report.add(watch, client=version_of("oras"), sends="POST, PUT (OCI)", same_content=is_same)


def test_tus_js_client(
    tus: ExampleServer, node_path: str, artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    command = tus_command(tus, artifact, 1, tmp_path)
    with watch_uploads(tus) as watch:
        url = watch.run(command, NODE_PATH=node_path).strip()

    watch.assert_progress()
    is_same = tus.http.get(url).content == artifact.read_bytes()
    report.add(watch, client=tus_version(node_path), sends="POST, PATCH", same_content=is_same)
