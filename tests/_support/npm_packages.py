"""npm packages for tests: installed once into the user's cache, and bundled with esbuild."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

PACKAGES = {
    "@uppy/core": "6.3.1",
    "@uppy/status-bar": "6.0.0",
    "@uppy/xhr-upload": "6.0.0",
    "axe-core": "4.14.1",
    "esbuild": "0.28.2",
    "htmx.org": "4.0.1",
    "react": "19.3.1",
    "react-dom": "19.3.1",
    "typescript": "7.0.2",
}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "upload-progress"
HOME = CACHE / "npm"
INSTALL_SECONDS = 240
RUN_SECONDS = 120


def install(npm: str) -> Path:
    """Install the packages if the versions have changed; return their folder."""
    stamp = HOME / "installed.json"
    wanted = json.dumps(PACKAGES)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return HOME / "node_modules"
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / "package.json").write_text('{"private": true}', encoding="utf-8")
    names = [f"{name}@{version}" for name, version in PACKAGES.items()]
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", "--loglevel=error")
    subprocess.run([npm, "install", *quiet, *names], cwd=HOME, check=True, timeout=INSTALL_SECONDS)
    stamp.write_text(wanted, encoding="utf-8")
    return HOME / "node_modules"


def bundle(modules: Path, source: Path) -> None:
    """Bundle *source* with its npm packages; the Web Component stays an external module."""
    options = (
        "--bundle",
        "--format=esm",
        "--jsx=automatic",
        "--define:process.env.NODE_ENV='production'",
        "--external:/uploads/*",
        "--log-level=warning",
        f"--outdir={HOME / 'bundles'}",
    )
    subprocess.run(
        [str(modules / ".bin" / "esbuild"), str(source), *options],
        check=True,
        timeout=RUN_SECONDS,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
