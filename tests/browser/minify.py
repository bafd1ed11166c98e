"""Writes the scripts that are served, see ``CONTRIBUTING.md``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests._support import npm_packages as npm
from tests._support.paths import ROOT
from upload_progress.starlette.component import script_version

STATIC = ROOT / "src" / "upload_progress" / "static"
SERVED = STATIC / "served"
SOURCES = (STATIC / "upload-progress.js", *sorted(STATIC.glob("upload-progress/*.js")))
STYLE_SHEET = re.compile(r"(?<=replaceSync\(`)[^`]*")


def minify(modules: Path, source: str) -> str:
    """Return the script *source* as it is served, minified with the style sheet in it."""
    script = _esbuild(modules, source, "--loader=js", "--format=esm")
    return STYLE_SHEET.sub(lambda found: _esbuild(modules, found[0], "--loader=css"), script) + "\n"


def served_files(modules: Path) -> dict[str, str]:
    """Return the served scripts by their names; the main one names the versions of the others."""
    main, *others = SOURCES
    served = {
        source.relative_to(STATIC).as_posix(): minify(modules, source.read_text(encoding="utf-8"))
        for source in others
    }
    script = minify(modules, main.read_text(encoding="utf-8"))
    for name, other in served.items():
        version = script_version(other.encode())
        script = script.replace(f'import("./{name}")', f'import("./{name}?v={version}")')
    return {main.name: script, **served}


def brotli(script: bytes, *, direction: str = "Compress") -> bytes:
    """Compress *script* as node does it, or decompress it."""
    code = f"process.stdout.write(zlib.brotli{direction}Sync(fs.readFileSync(0)))"
    node = str(shutil.which("node"))
    process = subprocess.run(
        [node, "-e", code], input=script, capture_output=True, check=True, timeout=npm.RUN_SECONDS
    )
    return process.stdout


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
    for name, script in served_files(modules).items():
        served = SERVED / name
        served.parent.mkdir(parents=True, exist_ok=True)
        served.write_text(script, encoding="utf-8")
        (SERVED / f"{name}.br").write_bytes(brotli(script.encode()))


if __name__ == "__main__":
    main()
