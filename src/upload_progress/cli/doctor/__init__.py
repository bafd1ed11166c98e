"""The command ``doctor``: finds out why the progress of uploads is late, wrong or missing.

It sends a probe to a server, or to an application that it runs itself, and names the cause of
each problem with its fix. It names a proxy only if a response does.
"""

import re
from pathlib import PurePosixPath
from typing import Final

from upload_progress.cli.connection import open_client
from upload_progress.cli.doctor.checks import TIMEOUT_SECONDS, Diagnosis
from upload_progress.cli.doctor.report import Report
from upload_progress.cli.doctor.upload_probe import PROBE_NAME
from upload_progress.cli.options import ConnectionOptions
from upload_progress.client.urls import DEFAULT_MOUNT, parse_url, target_url

__all__ = ["TARGET", "diagnose", "diagnose_app"]

TARGET: Final = re.compile(r"[\w.]+:[A-Za-z_][\w.]*")
"""``module:app``, as servers name an application; a URL contains a slash."""


async def diagnose(
    url: str,
    connection: ConnectionOptions,
    *,
    form: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> int:
    """Send the probe to *url*, print what was found, and return the exit code.

    Args:
        url: URL of an endpoint that accepts uploads; if it ends with ``/``, the name of the probe
            is appended.
        connection: How to connect to the server.
        form: Name of the field of a form that carries the probe; None to send it with ``PUT``.
        timeout_seconds: What has not arrived after that time is considered buffered.

    Raises:
        UploadProgressError: The server cannot be reached, denies access, or has no progress
            routes.
    """
    endpoint = parse_url(url, "URL").url
    target = endpoint if form else target_url(endpoint, PurePosixPath(PROBE_NAME))
    report = Report()
    async with open_client(url, connection, default_mount=DEFAULT_MOUNT) as client:
        await Diagnosis(client.api, target, report, timeout_seconds, form).run()
    return report.conclude()


async def diagnose_app(
    target: str,
    path: str | None,
    connection: ConnectionOptions,
    *,
    form: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> int:
    """Run an application in this process, send it the probe, and return the exit code.

    Args:
        target: ``module:app``; the module is found from the current folder.
        path: Path of an endpoint that accepts uploads; None if only the progress routes and the
            middleware are checked.
        connection: How to connect to the server.
        form: Name of the field of a form that carries the probe; None to send it with ``PUT``.
        timeout_seconds: What has not arrived after that time is considered buffered.

    Raises:
        UploadProgressError: The application cannot be imported or started, denies access, or has
            no progress routes.
    """
    from upload_progress.cli.doctor import application  # noqa: PLC0415  # imports uvicorn

    app = application.import_app(target)
    report = Report()
    endpoint = path or "/"
    with application.captured_warnings(report):
        async with application.served(app) as server:
            url = parse_url(f"{server}/{endpoint.lstrip('/')}", "path").url
            target_of_probe = url if form else target_url(url, PurePosixPath(PROBE_NAME))
            async with open_client(server, connection, default_mount=DEFAULT_MOUNT) as client:
                diagnosis = Diagnosis(client.api, target_of_probe, report, timeout_seconds, form)
                diagnosis.is_guess = path is None
                await diagnosis.run()
    return report.conclude()
