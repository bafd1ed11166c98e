"""The script file: its size, its types, its minified form, its npm package, its guide."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests._support.npm_packages import RUN_SECONDS
from tests._support.paths import ROOT
from upload_progress.starlette.component import minify

FOLDER = ROOT / "src" / "upload_progress" / "static"
SOURCE = (FOLDER / "upload-progress.js").read_text(encoding="utf-8")
MAX_GZIP_BYTES = 14 * 1024
USAGE = """
import { upload, type UploadProgressElement } from "upload-progress";
import type { Snapshot } from "upload-progress/types";

const bar: UploadProgressElement | null = document.querySelector("upload-progress");
const transfer = upload(new Blob(["a"]), "/files/a", { bar, group: "g" });
const end: Promise<Snapshot> = transfer.done;
// @ts-expect-error: a size is a number
const size: string = (await end).bytes_transferred;
"""


def run(modules: Path, *command: str, cwd: Path = ROOT, text: str = "") -> str:
    """Run a program of an npm package; return its output."""
    process = subprocess.run(
        [str(modules / ".bin" / command[0]), *command[1:]],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_compressed_file_has_at_most_14_kib() -> None:
    assert len(gzip.compress(minify(SOURCE).encode(), 9)) <= MAX_GZIP_BYTES


def test_guide_states_the_size_of_the_served_file() -> None:
    served = minify(SOURCE).encode()
    sizes = [f"{len(data) / 1000:.1f} kB" for data in (served, gzip.compress(served, 9))]

    assert re.findall(r"\d+\.\d kB", GUIDE) == sizes


def minified(modules: Path, source: str) -> tuple[str, list[str]]:
    """Return *source* minified by esbuild, with words replaced by numbers, and its strings."""
    flags = ("--minify-whitespace", "--minify-syntax", "--loader=js")
    script = run(modules, "esbuild", *flags, text=source)
    # The style sheet and the list of texts differ by their spaces, too.
    script = re.sub(r"\s*([{};,>])\s*|(?<=:) | *\n *", r"\1", script)
    words = dict.fromkeys(re.findall(r"#?[$a-zA-Z_][$\w]*", script))
    numbers = {word: f"<{number}>" for number, word in enumerate(words)}
    strings = re.findall(r'"[^"]*"', script)
    return re.sub(r"#?[$a-zA-Z_][$\w]*", lambda word: numbers[word[0]], script), strings


def test_served_file_is_equivalent_to_the_source(modules: Path) -> None:
    assert minified(modules, minify(SOURCE)) == minified(modules, SOURCE)
    assert minified(modules, SOURCE.replace("= 15000", "= 15001")) != minified(modules, SOURCE)


def test_types_are_valid_and_usable(modules: Path, tmp_path: Path) -> None:
    package = tmp_path / "node_modules" / "upload-progress"
    shutil.copytree(FOLDER, package)
    # As for publishing, see the guide.
    run(modules, "tsc", "-p", str(ROOT / "tsconfig.json"), "--outDir", str(package))
    (tmp_path / "use.ts").write_text(USAGE, encoding="utf-8")

    flags = ("--strict", "--noEmit", "--target", "es2023", "--module", "esnext")
    module_flags = ("--moduleResolution", "bundler", "--allowImportingTsExtensions", "--types", "")
    run(modules, "tsc", *flags, *module_flags, "use.ts", cwd=tmp_path)

    assert (package / "upload-progress.d.ts").is_file()


def test_npm_package_has_the_version_of_the_project_and_lists_existing_files() -> None:
    package = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert package["version"] == project["version"]
    emitted = "upload-progress.d.ts"
    assert all((FOLDER / name).is_file() for name in package["files"] if name != emitted)


# --- the guide ------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs" / "guides" / "web-component.md").read_text(encoding="utf-8")
KINDS = {
    "attribute": r'(?:getAttribute|hasAttribute)\("([\w-]+)"\)',
    "property of the style": r"var\((--upload-progress-\w+)",
    "part": r'(?:make\("\w+", |new (?:Bar|Row)\((?:"\w+", )?)"(\w+)"',
    "event": r'(?:#emit|dispatchEvent\(new CustomEvent)\("(\w+)"',
    "key of a text": r"^(\w+)\|",
    "export": r"^export (?:const|class|function) (\w+)",
    "method": r"^  (?:async )?([a-z]\w+)\([^)]*\) \{$",
}
# Documented by the types, or internal.
NOT_IN_THE_GUIDE = re.compile(
    r"LABELS|ProgressClient|Transfer|UploadProgressElement|constructor|\w+Callback|add|apply|refresh|"
    r"fetch|headers|stop|restart|emit|subscribe|finish|send|speed|show|bytes|percent|reason|share|"
    r"state|time|text|update|interrupt|isInterruptedBy"
)


@pytest.mark.parametrize("kind", KINDS)
def test_guide_documents_all_names(kind: str) -> None:
    names = {
        name
        for name in re.findall(KINDS[kind], SOURCE, re.MULTILINE)
        if kind not in {"export", "method"} or not NOT_IN_THE_GUIDE.fullmatch(name)
    }

    assert names
    assert [name for name in names if not re.search(rf"`[^`\n]*(?<![\w-]){name}\b", GUIDE)] == []


def test_guide_documents_all_form_attributes_and_options() -> None:
    dataset = set(re.findall(r"\bupload([A-Z]\w+)", SOURCE)) - {"Id"}
    types = (FOLDER / "types.d.ts").read_text(encoding="utf-8")
    options = re.findall(
        r"^  (\w+)\?:", types.partition("interface UploadOptions")[2], re.MULTILINE
    )

    named = {f"data-upload-{name.lower()}" for name in dataset} | set(options)
    assert len(named) >= 12
    assert [name for name in named if f"| `{name}` |" not in GUIDE] == []
