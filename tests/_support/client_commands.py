"""Command lines of the real clients, with the credentials of the user alice."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests._support.upload_watcher import Command, ExampleServer

__all__ = [
    "INSTALL_HINT",
    "PUBLISH_COMMANDS",
    "driver_command",
    "skopeo_copy",
    "tus_command",
    "tus_version",
]

DRIVERS = Path(__file__).parent / "client_drivers"
INSTALL_HINT = "install {} with your system's package manager"
ALICE = ["-u", "alice", "-p", "alice"]

PUBLISH_COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "twine": lambda url: [
        *(sys.executable, "-m", "twine", "upload", "--non-interactive"),
        *("--disable-progress-bar", "--repository-url", url, *ALICE),
    ],
    "uv": lambda url: [
        *(str(Path(sys.executable).parent / "uv"), "publish"),
        *("--publish-url", url, *ALICE),
    ],
}


def driver_command(name: str) -> list[str]:
    """Return the command that runs a program in ``client_drivers``, without its arguments."""
    return [sys.executable, str(DRIVERS / name)]


def skopeo_copy(skopeo: str, side: str, source: str, target: str) -> list[str]:
    """Return skopeo's command; the registry is the ``dest`` of a push, the ``src`` of a pull."""
    access = [f"--{side}-tls-verify=false", f"--{side}-creds=alice:alice"]
    return [skopeo, "--insecure-policy", "copy", *access, source, target]


def tus_command(tus: ExampleServer, file: Path, parallel: int, folder: Path) -> Command:
    """Return the command that uploads with tus-js-client; it stores upload URLs in *folder*."""
    endpoint, storage = f"{tus.url}/files/", folder / "storage"
    return ["node", DRIVERS / "tus_upload.cjs", endpoint, file, str(parallel), storage]


def tus_version(node_path: str) -> str:
    """Return name and version of tus-js-client."""
    package = json.loads((Path(node_path) / "tus-js-client" / "package.json").read_text())
    return f"tus-js-client {package['version']}"
