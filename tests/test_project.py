"""The project as a whole: rules for code, the import, the wheel, the documentation, the commands.

Each rule is a function from source text to messages, and is also tested on a text that breaks it.
The direction of imports is checked by import-linter, in the nox session "lint".
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import upload_progress
from tests._support.paths import ROOT
from tests.conftest import RequireProgram, program_path

PACKAGE = ROOT / "src" / "upload_progress"
CODE = ["*.py", "src/**/*.py", "tests/**/*.py", "examples/**/*.py", "benchmarks/**/*.py"]
FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for pattern in CODE
    for path in sorted(ROOT.glob(pattern))
}


def module_name(path: Path) -> str:
    """Return the dotted name of the module in the file *path*."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}

# --- rules for code -------------------------------------------------------------------------------

LONGEST_FUNCTION_LINES = 40
# The rule, followed by the reason.
EXPLAINED = re.compile(
    r"#\s*(noqa: ?[A-Z]+\d+(, ?[A-Z]+\d+)*|(type|pyright): ?ignore\[[\w, -]+\])\s+[#-]? ?\w"
)
IGNORE = re.compile(r"#\s*(flake8|ruff):? ?noqa|#\s*noqa|#\s*(type|pyright|mypy): ?ignore|pragma:")

SHORT_DEADLINE = re.compile(r"\b(fail_after|deadline)\(\d(\.\d*)?\)")


def length_faults(name: str, text: str) -> list[str]:
    """Return a message for each function that is too long, docstring aside."""
    functions = [
        (node.name, node.end_lineno - node.lineno + 1 - docstring_lines(node))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    return [
        f"{name}: {function} has {lines} lines"
        for function, lines in functions
        if lines > LONGEST_FUNCTION_LINES
    ]


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of the docstring of *function*."""
    text = ast.get_docstring(function, clean=False)
    return 0 if text is None else text.count("\n") + 1


def ignore_faults(name: str, text: str) -> list[str]:
    """Return each comment that silences a tool without the rule and the reason."""
    return [
        f"{name}:{token.start[0]}: {token.string}"
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
        if IGNORE.search(token.string) and not EXPLAINED.search(token.string)
    ]


def deadline_faults(name: str, text: str) -> list[str]:
    """Return each deadline that a busy machine may miss; a time limit under test has a name."""
    return [f"{name}: {found[0]}" for found in SHORT_DEADLINE.finditer(text)]


def export_faults(name: str, text: str) -> list[str]:
    """Return the differences between ``__all__`` and the public names of the module."""
    body = [inner for node in ast.parse(text).body for inner in statements(node)]
    defined = {found for node in body for found in defined_names(node)}
    imported = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    listed = {entry for node in body for entry in exports(node)}
    public = {found for found in defined if not found.startswith("_")}
    absent, forgotten = listed - defined - imported, public - listed
    return [f"{name}: {entry} is listed, but not defined" for entry in sorted(absent)] + [
        f"{name}: {entry} is public, but not listed" for entry in sorted(forgotten)
    ]


def statements(node: ast.stmt) -> list[ast.stmt]:
    """Return the statement, or those for type checkers: names that are imported when used."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return node.body
    return [node]


def defined_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines, without loggers and type variables."""
    if re.match(
        r"\w+(: [\w.\[\]]+)? = (\w+\.)?(TypeVar(Tuple)?|ParamSpec|getLogger)\(",
        ast.unparse(node),
    ):
        return []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def exports(node: ast.stmt) -> list[str]:
    """Return what ``__all__`` lists, if *node* sets it."""
    if isinstance(node, ast.Assign) and defined_names(node) == ["__all__"]:
        return [str(entry) for entry in ast.literal_eval(node.value)]
    return []


def test_folders_have_few_modules() -> None:
    folders = Counter(path.parent for path in PACKAGE.rglob("*.py") if "__" not in path.stem)

    assert [f"{folder} has {count}" for folder, count in folders.items() if count > 12] == []


def test_functions_are_short() -> None:
    faults = [fault for item in MODULES.items() for fault in length_faults(*item)]

    assert not faults, "\n".join(faults)


def test_every_ignore_names_its_rule_and_its_reason() -> None:
    faults = [fault for item in FILES.items() for fault in ignore_faults(*item)]

    assert not faults, "\n".join(faults)


def test_deadlines_of_tests_are_ten_seconds_and_more() -> None:
    """A test that passes ends at once, however long its deadline is."""
    faults = [fault for item in FILES.items() for fault in deadline_faults(*item)]

    assert not faults, "\n".join(faults)


def test_every_export_list_is_complete() -> None:
    faults = [fault for item in MODULES.items() for fault in export_faults(*item)]

    assert not faults, "\n".join(faults)


def test_each_rule_finds_a_violation() -> None:
    short, long = (f"fail_after({seconds})" for seconds in (9.5, 10.0))
    long_function = 'def f():\n    """Do.\n\n    It.\n    """\n' + "    g()\n" * 40
    ignored = "f()  # noqa{}\ng()  # type: ignore{}\n"
    exporter = "import a\nT = TypeVar('T')\n__all__ = ['a', 'B', 'c']\nclass B: ...\nd: int = 1\n"

    assert length_faults("m", long_function) == ["m: f has 41 lines"]
    assert len(ignore_faults("m", ignored.format("", ""))) == 2
    assert len(ignore_faults("m", ignored.format(": E501", "[arg-type]"))) == 2
    assert ignore_faults("m", ignored.format(": E501  # why", "[arg-type]  # why")) == []
    assert deadline_faults("m", f"with {short}, {long}, deadline(LIMIT):") == [f"m: {short}"]
    assert export_faults("m", exporter) == [
        "m: c is listed, but not defined",
        "m: d is public, but not listed",
    ]


# --- the import -----------------------------------------------------------------------------------

IMPORT = """
import json, sys
before, effects = set(sys.modules), []
sys.addaudithook(lambda name, _: effects.append(name))
import upload_progress
from upload_progress import *
loud = ("socket.__new__", "socket.connect", "subprocess.Popen", "_thread.start")
print(json.dumps({
    "effects": [name for name in effects if name.startswith(loud)],
    "loaded": sorted({name.split(".")[0] for name in sys.modules if name not in before}),
}))
"""
CORE = {"anyio", "attr", "attrs", "idna", "msgspec", "sniffio", "typing_extensions"}


def test_the_import_has_no_side_effects_and_loads_only_the_core_dependencies() -> None:
    """The import gives no warning, and opens no socket, process or thread."""
    run = [sys.executable, "-W", "error", "-c", IMPORT]
    finished = subprocess.run(run, capture_output=True, text=True, check=True)
    report = json.loads(finished.stdout)

    assert finished.stderr == ""
    assert report["effects"] == []
    assert set(report["loaded"]) - CORE - set(sys.stdlib_module_names) == {"upload_progress"}


def test_public_names_are_found_before_they_are_used() -> None:
    names = {name: getattr(upload_progress, name) for name in upload_progress.__all__}

    assert names.keys() <= set(dir(upload_progress))
    assert names["__version__"] == importlib.metadata.version("upload-progress")
    assert not hasattr(upload_progress, "nothing")


# --- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Build the wheel twice, without the network."""
    folders = [tmp_path_factory.mktemp("wheel") for _ in range(2)]
    for folder in folders:
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
        subprocess.run([*build, "--directory", str(folder)], cwd=ROOT, check=True)
    return [path for folder in folders for path in folder.iterdir()]


def test_the_wheel_holds_the_package_and_nothing_else(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as archive:
        names = set(archive.namelist())
        content = b"".join(archive.read(name) for name in names)

    inside = {name for name in names if ".dist-info/" not in name}
    tree = {path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*") if path.is_file()}
    assert inside == {path.as_posix() for path in tree if path.suffix != ".pyc"}
    assert "upload_progress/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert b"PRIVATE KEY" not in content


def test_the_wheel_is_reproducible(wheels: list[Path]) -> None:
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels)

    assert first == second


def test_versions_agree(wheels: list[Path]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheels[0]) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())

    versions = {project["version"], metadata["Version"], upload_progress.__version__}
    assert versions == {importlib.metadata.version("upload-progress")}


def test_links_of_the_readme_work_on_a_package_index(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(name).decode()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", readme)
    shown = re.findall(r"\]\(([^)]+)\)", metadata)

    assert len(shown) == len(links)
    assert all(link.startswith("https://") for link in shown)
    for link, target in zip(links, shown, strict=True):
        assert target.endswith(link)
        assert link.startswith("https://") or (ROOT / link).exists()


# --- the documentation ----------------------------------------------------------------------------


def pages_in(navigation: object) -> Iterator[str]:
    """Yield the files of a part of the navigation of ``mkdocs.yml``."""
    if isinstance(navigation, str):
        yield navigation
    else:
        assert isinstance(navigation, list | dict)
        parts = navigation.values() if isinstance(navigation, dict) else navigation
        for part in parts:
            yield from pages_in(part)


def test_the_navigation_contains_every_page_once() -> None:
    """Zensical reports broken links, but neither pages that are missing here nor extra pages."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    excluded = config["exclude_docs"].split()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}

    assert sorted(pages_in(config["nav"])) == sorted(
        page for page in pages if not any(page.startswith(prefix) for prefix in excluded)
    )


# --- the commands ---------------------------------------------------------------------------------


def test_the_readme_is_short_and_its_two_commands_are_the_ones_that_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")

    assert readme.count("\n") <= 110
    assert re.findall(r"^\W*(python3 dev\.py \w+)", readme, re.MULTILINE)[:2] == [
        "python3 dev.py demo",
        "python3 dev.py test",
    ]
    assert script.splitlines()[-1] == "exec python3 dev.py test --require-services"


# --- missing programs -----------------------------------------------------------------------------


def test_a_program_that_is_there_is_found(require_program: RequireProgram) -> None:
    assert Path(require_program("no-such", sys.executable, install="")).samefile(sys.executable)


@pytest.mark.parametrize(
    ("required", "outcome"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)]
)
def test_a_missing_program_is_named(required: bool, outcome: type[BaseException]) -> None:
    with pytest.raises(outcome, match="no-such is not installed; get it"):
        program_path("no-such", install="get it", required=required)
