"""The script file: its size, its types, its minified form, its npm package, its guide."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests._support.npm_packages import RUN_SECONDS
from tests._support.paths import ROOT
from tests.browser.minify import SERVED, STATIC, brotli, minify, served_files
from tests.browser.minify import SOURCES as SCRIPTS
from upload_progress.starlette.component import MODULES, component_script, compressed_scripts

SOURCES = [path.read_text(encoding="utf-8") for path in SCRIPTS]
SOURCE = SOURCES[0]
MAX_GZIP_BYTES = 13_000
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


def test_compressed_file_has_at_most_13_kilobytes() -> None:
    assert len(compressed_scripts()["gzip"]) <= MAX_GZIP_BYTES


def test_guide_states_the_sizes_of_the_served_files() -> None:
    main = compressed_scripts()
    compressed = [main["gzip"], main["br"], *(compressed_scripts(name)["gzip"] for name in MODULES)]
    sizes = [f"{len(data) / 1000:.1f} kB" for data in (component_script() or b"", *compressed)]

    assert re.findall(r"\d+\.\d kB", GUIDE) == sizes


def test_each_language_has_all_texts() -> None:
    lines = [re.findall(r"^\w+\|.*$", source, re.MULTILINE) for source in SOURCES]
    main, forms, languages, panel, parts, streams = (
        [line.split("|") for line in each] for each in lines
    )

    assert [key for key, _ in main] == [key for key, *_ in languages]
    assert not streams
    assert {len(line) for line in languages} == {3}
    assert {len(line) for line in [*forms, *panel, *parts]} == {4}
    assert all(
        text.strip() for line in [*main, *forms, *languages, *panel, *parts] for text in line
    )


def test_served_files_are_minified_and_compressed_sources(modules: Path) -> None:
    for name, script in served_files(modules).items():
        # If this fails: nox -s minify
        assert (SERVED / name).read_text(encoding="utf-8") == script
        compressed = (SERVED / f"{name}.br").read_bytes()
        assert brotli(compressed, direction="Decompress") == script.encode()
    assert minify(modules, SOURCE.replace("= 15000", "= 15001")) != minify(modules, SOURCE)


def test_types_are_valid_and_usable(modules: Path, tmp_path: Path) -> None:
    package = tmp_path / "node_modules" / "upload-progress"
    shutil.copytree(STATIC, package)
    # As for publishing, see the guide.
    run(modules, "tsc", "-p", str(ROOT / "tsconfig.json"), "--outDir", str(package))
    (tmp_path / "use.ts").write_text(USAGE, encoding="utf-8")

    flags = ("--strict", "--noEmit", "--target", "es2023", "--module", "esnext")
    module_flags = ("--moduleResolution", "bundler", "--allowImportingTsExtensions", "--types", "")
    run(modules, "tsc", *flags, *module_flags, "use.ts", cwd=tmp_path)

    assert (package / "upload-progress.d.ts").is_file()


def test_npm_package_has_the_version_of_the_project_and_lists_existing_files() -> None:
    package = json.loads((STATIC / "package.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert package["version"] == project["version"]
    # npm compares it with the workflow that publishes with provenance.
    assert package["repository"]["url"] == f"git+{project['urls']['Source']}.git"
    emitted = "upload-progress.d.ts"
    assert all(
        (STATIC / name).is_file()
        for name in package["files"]
        if name not in {emitted, "upload-progress"}
    )
    assert all((STATIC / name).is_file() for name in MODULES)


# --- the guide ------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs" / "guides" / "web-component.md").read_text(encoding="utf-8")
KINDS = {
    "attribute": r'(?:getAttribute|hasAttribute)\("([\w-]+)"\)',
    "property of the style": r"var\((--upload-progress-\w+)",
    "part": r'(?:make\("\w+", |#button\(|new (?:Bar|Row)\((?:"\w+", )?)"(\w+)"',
    "event": r'(?:#emit|dispatchEvent\(new CustomEvent)\("(\w+)"',
    "key of a text": r"^(\w+)\|",
    "export": r"^export (?:const|class|function) (\w+)",
    "method": r"^  (?:async )?([a-z]\w+)\([^)]*\) \{$",
}
# Documented by the types, or internal.
NOT_IN_THE_GUIDE = re.compile(
    r"LABELS|Formatter|Forms|Panel|Row|ProgressClient|Transfer|UploadProgressElement|constructor|"
    r"\w+Callback|add|apply|refresh|note|change|submit|drop|walk|clear|remove|reset|resize|rate|"
    r"fetch|headers|stop|restart|emit|subscribe|finish|send|speed|show|bytes|percent|reason|share|"
    r"state|time|text|update|interrupt|isInterruptedBy|Parts|next|end|localize|pollList|receive\w+"
)


@pytest.mark.parametrize("kind", KINDS)
def test_guide_documents_all_names(kind: str) -> None:
    names = {
        name
        for source in SOURCES
        for name in re.findall(KINDS[kind], source, re.MULTILINE)
        if kind not in {"export", "method"} or not NOT_IN_THE_GUIDE.fullmatch(name)
    }

    assert names
    assert [name for name in names if not re.search(rf"`[^`\n]*(?<![\w-]){name}\b", GUIDE)] == []


def test_guide_documents_all_form_attributes_and_options() -> None:
    dataset = set(re.findall(r"\bupload([A-Z]\w+)", " ".join(SOURCES))) - {"Id"}
    types = (STATIC / "types.d.ts").read_text(encoding="utf-8")
    declared = types.partition("interface UploadOptions")[2].partition("\n}")[0]
    options = re.findall(r"^  (\w+)\?:", declared, re.MULTILINE)

    named = {f"data-upload-{name.lower()}" for name in dataset} | set(options)
    assert len(named) >= 12
    assert [name for name in named if f"| `{name}` |" not in GUIDE] == []
