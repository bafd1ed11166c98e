"""Real clients against the example servers: uploads in several requests, also of killed clients.

Bytes of a killed client may still be arriving. The tests therefore wait until no upload is in
progress before they restart it. The results are a table in the documentation, see
``client_report``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests._support.artifacts import make_image, sha256_of
from tests._support.client_commands import driver_command, skopeo_copy, tus_command, tus_version
from tests._support.client_report import ClientReport, version_of
from tests._support.upload_watcher import Command, ExampleServer, watch_uploads
from tests.clients.conftest import SIZE, Certificate
from upload_progress import CertificateInvalid, NotAllowed
from upload_progress.client import ProgressClient


def test_curl_resumes(
    curl: list[str],
    files: ExampleServer,
    large_artifact: Path,
    tmp_path: Path,
    report: ClientReport,
) -> None:
    url, download = f"{files.url}/files/resumed.bin", tmp_path / "back"
    curl_with_id = [*curl, "-H", "Upload-Id: resumed-by-curl-0001"]
    with watch_uploads(files) as watch:
        watch.kill_midway([*curl_with_id, "-T", large_artifact, url])
        watch.read_until_idle()
        offset = files.http.head("/files/resumed.bin").headers["upload-offset"]
        watch.run([*curl_with_id, "-T", large_artifact, "-C", offset, url])
        watch.run([*curl, "-o", download, url])

    assert 0 < int(offset) < large_artifact.stat().st_size
    watch.assert_progress()
    report.add(
        watch,
        client=version_of(curl[0]),
        sends="a PUT with Content-Range (`-C`), and `Upload-Id`",
        same_content=sha256_of(download) == sha256_of(large_artifact),
        restarted="resumed the same upload",
    )


def test_skopeo_starts_over(
    registry: ExampleServer, skopeo: str, tmp_path: Path, report: ClientReport
) -> None:
    image, download = tmp_path / "image", tmp_path / "back"
    digest = make_image(image, 3 * SIZE)
    target = f"docker://127.0.0.1:{registry.port}/alice/again:1"
    with watch_uploads(registry) as watch:
        watch.kill_midway(skopeo_copy(skopeo, "dest", f"oci:{image}:1", target))
        watch.read_until_idle()
        watch.run(skopeo_copy(skopeo, "dest", f"oci:{image}:1", target))
        watch.run(skopeo_copy(skopeo, "src", target, f"oci:{download}:1"))

    watch.assert_progress("paused")
    [manifest] = json.loads((download / "index.json").read_text())["manifests"]
    report.add(
        watch,
        client=version_of(skopeo),
        sends="a second push",
        same_content=manifest["digest"] == digest,
        restarted="started a new upload, as it does not resume; the old one stays paused",
    )


def test_oras_in_chunks(
    registry: ExampleServer, large_artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    artifact = large_artifact
    target = f"127.0.0.1:{registry.port}/alice/by-oras-chunked:1"
    with watch_uploads(registry) as watch:
        watch.run([*driver_command("oras_push.py"), "chunked", target, artifact])
        watch.run([*driver_command("oras_push.py"), "pull", target, tmp_path / artifact.name])

    watch.assert_progress()
    is_same = sha256_of(tmp_path / artifact.name) == sha256_of(artifact)
    report.add(
        watch, client=version_of("oras"), sends="POST, PATCH …, PUT (OCI)", same_content=is_same
    )


def test_tus_js_client_in_parallel(
    tus: ExampleServer, node_path: str, large_artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    artifact = large_artifact
    command = tus_command(tus, artifact, 3, tmp_path)
    with watch_uploads(tus) as watch:
        url = watch.run(command, NODE_PATH=node_path).strip()

    watch.assert_progress()
    is_same = tus.http.get(url).content == artifact.read_bytes()
    report.add(
        watch,
        client=tus_version(node_path),
        sends="three parallel PATCH, then one POST",
        same_content=is_same,
    )


@pytest.mark.parametrize(
    ("parallel", "sends"), [(1, "POST, PATCH, PATCH"), (3, "three parallel PATCH, resumed")]
)
def test_tus_js_client_resumes(
    *,
    parallel: int,
    sends: str,
    tus: ExampleServer,
    node_path: str,
    large_artifact: Path,
    tmp_path: Path,
    report: ClientReport,
) -> None:
    command = tus_command(tus, large_artifact, parallel, tmp_path)
    with watch_uploads(tus) as watch:
        watch.kill_midway(command, NODE_PATH=node_path)
        watch.read_until_idle()
        url = watch.run(command, NODE_PATH=node_path).strip()

    watch.assert_progress()
    report.add(
        watch,
        client=tus_version(node_path),
        sends=sends,
        same_content=tus.http.get(url).content == large_artifact.read_bytes(),
        restarted="resumed the same upload",
    )


def test_boto3(
    s3: ExampleServer, large_artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    download = tmp_path / "back"
    with watch_uploads(s3) as watch:
        watch.run([*driver_command("boto3_upload.py"), "upload", s3.url, large_artifact, "a/b.bin"])
        watch.run([*driver_command("boto3_upload.py"), "download", s3.url, download, "a/b.bin"])

    watch.assert_progress()
    is_same = sha256_of(download) == sha256_of(large_artifact)
    report.add(watch, client=version_of("boto3"), sends="parts, in parallel", same_content=is_same)


def test_boto3_over_tls(
    s3_over_tls: ExampleServer,
    certificate: Certificate,
    large_artifact: Path,
    tmp_path: Path,
    report: ClientReport,
) -> None:
    download, url, certificate_path = tmp_path / "back", s3_over_tls.url, str(certificate.trusted)
    with watch_uploads(s3_over_tls) as watch:
        for action, file in (("upload", large_artifact), ("download", download)):
            watch.run(
                [*driver_command("boto3_upload.py"), action, url, file, "d.bin"],
                CERTIFICATE=certificate_path,
            )

    watch.assert_progress()
    assert watch.latest()[0]["bytes_transferred"] == large_artifact.stat().st_size
    is_same = sha256_of(download) == sha256_of(large_artifact)
    report.add(
        watch,
        client=version_of("boto3"),
        sends="parts, `aws-chunked`, over TLS",
        same_content=is_same,
    )


def test_client_checks_the_certificate(
    s3_over_tls: ExampleServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        ProgressClient(f"{s3_over_tls.url}/uploads", retries=0) as client,
        pytest.raises(CertificateInvalid),
    ):
        client.list()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.trusted))
    with (
        ProgressClient(f"{s3_over_tls.url}/uploads", retries=0) as client,
        pytest.raises(NotAllowed),
    ):
        client.list()


def test_boto3_resumes(
    s3: ExampleServer, large_artifact: Path, tmp_path: Path, report: ClientReport
) -> None:
    download = tmp_path / "back"
    with watch_uploads(s3) as watch:
        upload: Command = [
            *driver_command("boto3_upload.py"),
            "upload",
            s3.url,
            large_artifact,
            "c.bin",
        ]
        watch.kill_midway(upload)
        watch.read_until_idle()
        watch.run([*driver_command("boto3_upload.py"), "resume", s3.url, large_artifact, "c.bin"])
        watch.run([*driver_command("boto3_upload.py"), "download", s3.url, download, "c.bin"])

    watch.assert_progress()
    report.add(
        watch,
        client=version_of("boto3"),
        sends="the missing parts, to resume",
        same_content=sha256_of(download) == sha256_of(large_artifact),
        restarted="resumed the same upload",
    )
