"""Writes the scripts that are served, see ``CONTRIBUTING.md``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests._support import npm_packages as npm
from tests._support.paths import ROOT

STATIC = ROOT / "src" / "upload_progress" / "static"
SERVED = STATIC / "served"
SOURCES = (STATIC / "upload-progress.js", *sorted(STATIC.glob("upload-progress/*.js")))
STYLE_SHEET = re.compile(r"(?<=replaceSync\(`)[^`]*")


def minify(modules: Path, source: str) -> str:
    """Return the script *source* as it is served, minified with the style sheet in it."""
    script = _esbuild(modules, source, "--loader=js", "--format=esm")
    return STYLE_SHEET.sub(lambda found: _esbuild(modules, found[0], "--loader=css"), script) + "\n"


def _esbuild(modules: Path, source: str, *options: str) -> str:
    process = subprocess.run(
        [str(modules / ".bin" / "esbuild"), "--minify", "--charset=utf8", *options],
        input=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=npm.RUN_SECONDS,
    )
    return process.stdout.strip()


def main() -> None:
    """Minify the Web Component and its modules."""
    modules = npm.install(str(shutil.which("npm")))
    for source in SOURCES:
        served = SERVED / source.relative_to(STATIC)
        served.parent.mkdir(parents=True, exist_ok=True)
        served.write_text(minify(modules, source.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
