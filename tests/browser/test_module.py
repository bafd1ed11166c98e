"""The script as a file: small, typed, the same as it is served, and a package for npm."""

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
MOST_BYTES = 12 * 1024
USE = """
import { upload, type UploadProgressElement } from "upload-progress";
import type { Snapshot } from "upload-progress/types";

const bar: UploadProgressElement | null = document.querySelector("upload-progress");
const transfer = upload(new Blob(["a"]), "/files/a", { bar, group: "g" });
const end: Promise<Snapshot> = transfer.done;
// @ts-expect-error: a size is a number
const size: string = (await end).bytes_transferred;
"""


def run(modules: Path, *command: str, cwd: Path = ROOT, text: str = "") -> str:
    """Run a program that came from npm; return what it says."""
    done = subprocess.run(
        [str(modules / ".bin" / command[0]), *command[1:]],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_small() -> None:
    assert len(gzip.compress(minify(SOURCE).encode(), 9)) <= MOST_BYTES


def minified(modules: Path, source: str) -> str:
    """Return what a minifier makes of *source*, each private name replaced by its number."""
    flags = ("--minify-whitespace", "--minify-syntax", "--loader=js")
    script = run(modules, "esbuild", *flags, text=source)
    names = {
        name: number for number, name in enumerate(dict.fromkeys(re.findall(r"#(\w+)", script)))
    }
    # Of the style sheet's lines, too, only the indentation differs.
    return re.sub(r"#(\w+)", lambda found: f"#{names[found[1]]}", re.sub(r"\n *", "\n", script))


def test_what_is_served_does_the_same(modules: Path) -> None:
    assert minified(modules, minify(SOURCE)) == minified(modules, SOURCE)
    assert minified(modules, SOURCE.replace("= 15000", "= 15001")) != minified(modules, SOURCE)


def test_its_types_are_sound_and_of_use_to_others(modules: Path, tmp_path: Path) -> None:
    package = tmp_path / "node_modules" / "upload-progress"
    shutil.copytree(FOLDER, package)
    # Whoever publishes it does the same.
    run(modules, "tsc", "-p", str(ROOT / "tsconfig.json"), "--outDir", str(package))
    (tmp_path / "use.ts").write_text(USE, encoding="utf-8")

    flags = ("--strict", "--noEmit", "--target", "es2023", "--module", "esnext")
    more = ("--moduleResolution", "bundler", "--allowImportingTsExtensions", "--types", "")
    run(modules, "tsc", *flags, *more, "use.ts", cwd=tmp_path)

    assert (package / "upload-progress.d.ts").is_file()


def test_the_package_is_of_this_version_and_names_what_there_is() -> None:
    package = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert package["version"] == project["version"]
    emitted = "upload-progress.d.ts"
    assert all((FOLDER / name).is_file() for name in package["files"] if name != emitted)


# --- its guide ------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs" / "guides" / "web-component.md").read_text(encoding="utf-8")
KINDS = {
    "attribute": r'(?:getAttribute|hasAttribute)\("([\w-]+)"\)',
    "property of the style": r"var\((--upload-progress-\w+)",
    "part": r'(?:make\("\w+", |new (?:Bar|Row)\((?:"\w+", )?)"(\w+)"',
    "event": r'(?:#tell|dispatchEvent\(new CustomEvent)\("(\w+)"',
    "key of a word": r"^(\w+)\|",
    "export": r"^export (?:const|class|function) (\w+)",
    "method": r"^  (?:async )?([a-z]\w+)\([^)]*\) \{$",
}
# What others build on is in its types; what lies inside is not for users.
NOT_IN_THE_GUIDE = re.compile(
    r"LABELS|ProgressFeed|Transfer|UploadProgressElement|constructor|\w+Callback|add|accept|ask|fetch|"
    r"headers|deny|restart|tell|follow|close|send|calmly|show|bytes|percent|pace|reason|share|state|"
    r"time|say|part"
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_guide_leaves_nothing_out(kind: str) -> None:
    names = {
        name
        for name in re.findall(KINDS[kind], SOURCE, re.MULTILINE)
        if kind not in {"export", "method"} or not NOT_IN_THE_GUIDE.fullmatch(name)
    }

    assert names
    assert [name for name in names if not re.search(rf"`[^`\n]*(?<![\w-]){name}\b", GUIDE)] == []


def test_the_guide_names_every_attribute_of_a_form_and_every_option() -> None:
    dataset = set(re.findall(r"\bupload([A-Z]\w+)", SOURCE)) - {"Id"}
    types = (FOLDER / "types.d.ts").read_text(encoding="utf-8")
    options = re.findall(
        r"^  (\w+)\?:", types.partition("interface UploadOptions")[2], re.MULTILINE
    )

    named = {f"data-upload-{name.lower()}" for name in dataset} | set(options)
    assert len(named) >= 12
    assert [name for name in named if f"| `{name}` |" not in GUIDE] == []
