"""The documentation is complete: every option, error and public name, and its links work."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
from attrs import fields

from docs.layers import layers
from tests._support.paths import ROOT
from upload_progress import InvalidValue, Limits, ProgressTracker, Retention, exceptions, throttling
from upload_progress._model.models import ErrorCode, UploadState
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.backends import publisher_from_url, store_from_url
from upload_progress.cli import commands, exit_codes
from upload_progress.starlette import progress_mount, progress_routes

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
GUIDE = PAGES["docs/server-guide.md"]
REFERENCE = PAGES["docs/reference/python.md"]

PUBLIC_PACKAGES = [
    "",
    ".asgi",
    ".backends",
    ".backends.kafka",
    ".backends.postgres",
    ".backends.redis",
    ".client",
    ".config",
    ".instrumentation.opentelemetry",
    ".instrumentation.prometheus",
    ".interfaces",
    ".openapi",
    ".protocols",
    ".settings",
    ".starlette",
    ".testing",
]

# --- options, errors and public names -------------------------------------------------------------


def parameters(call: object) -> list[str]:
    """Return the parameters of *call* that are documented in its table."""
    assert callable(call)
    return [name for name in inspect.signature(call).parameters if name not in {"self", "app"}]


OPTIONS = {
    "ProgressTracker": parameters(ProgressTracker),
    "UploadProgressMiddleware": parameters(UploadProgressMiddleware),
    "progress_mount": parameters(progress_mount),
    "Limits": [attribute.name for attribute in fields(Limits)],
}


@pytest.mark.parametrize("title", OPTIONS)
def test_every_option_is_in_its_table(title: str) -> None:
    section = GUIDE.partition(f"### {title}\n")[2].partition("\n##")[0]

    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == OPTIONS[title]


def test_every_command_and_option_is_documented() -> None:
    page = PAGES["docs/guides/command-line.md"]
    for name in commands.app:
        if name.startswith("-"):
            continue
        assert f"### {name}\n" in page
        section = page.partition(f"### {name}\n")[2].partition("\n##")[0]
        shared = page.partition("## Options of all")[2].partition("\n## Authentication")[0]
        for argument in commands.app[name].assemble_argument_collection():
            for option in argument.names:
                assert not option.startswith("--") or f"| `{option}` |" in section + shared, option


def test_every_exit_code_is_documented() -> None:
    codes = {str(value) for name, value in vars(exit_codes).items() if name in CODES}

    assert codes == set(
        re.findall(r"^\| (\d+) \|", PAGES["docs/guides/command-line.md"], re.MULTILINE)
    )


CODES = {"SUCCESS", "FAILED", "USAGE", "UNREACHABLE", "NOT_ALLOWED", "INTERRUPTED"}


def test_mount_and_routes_take_the_same_options() -> None:
    assert parameters(progress_routes) == parameters(progress_mount)


@pytest.mark.parametrize("attribute", fields(Limits), ids=lambda attribute: str(attribute.name))
def test_the_defaults_of_limits_are_as_documented(attribute: object) -> None:
    name, default = getattr(attribute, "name", ""), getattr(attribute, "default", 0)
    row = re.search(rf"^\| `{name}` \| ([\d ]+) \|", GUIDE, re.MULTILINE)

    assert row
    assert int(row[1].replace(" ", "")) == default


def test_every_retention_is_documented() -> None:
    for attribute in fields(Retention):
        assert f"{attribute.name}={attribute.default:.0f}" in GUIDE


def test_every_policy_is_documented() -> None:
    policies = [name for name in throttling.__all__ if name.startswith(("Every", "By"))]

    assert policies
    assert all(f"`{name}" in GUIDE for name in [*policies, "ThrottlePolicy", "Gate"])


@pytest.mark.parametrize("from_url", [store_from_url, publisher_from_url])
def test_every_url_scheme_is_documented(from_url: Callable[[str], object]) -> None:
    with pytest.raises(InvalidValue) as caught:
        from_url("unknown:")

    schemes = re.findall(r"\b([a-z+]+):(?= |,|$)", caught.value.problem)
    assert "redis" in schemes
    for scheme in schemes:
        assert re.search(rf"`{re.escape(scheme)}:(//)?`", PAGES["docs/guides/many-workers.md"]), (
            scheme
        )


def test_every_extra_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    for extra in project["optional-dependencies"]:
        assert f"upload-progress[{extra}]" in GUIDE


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_error_is_documented(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE


@pytest.mark.parametrize("word", [*UploadState, *ErrorCode])
def test_every_state_and_reason_is_documented(word: str) -> None:
    assert f"`{word}`" in PAGES["docs/states.md"]


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_reference_contains_every_public_name(package: str) -> None:
    module = import_module(f"upload_progress{package}")
    shown = re.findall(r"^::: upload_progress\.([\w.]+)", REFERENCE, re.MULTILINE)
    names = {name.rpartition(".")[2] for name in shown}

    assert set(module.__all__) - names - {"__version__", *exceptions.__all__} == set()


@pytest.mark.parametrize(
    "name",
    [
        "ProgressTracker.from_url",
        "backends.MemoryPublisher",
        "backends.rabbitmq.RabbitPublisher",
        "backends.redis.RedisPublisher",
        "backends.redis.RedisStore",
    ],
)
def test_reference_contains_what_the_guides_use(name: str) -> None:
    owner, _, member = name.rpartition(".")

    assert f"::: upload_progress.{name}\n" in REFERENCE or re.search(
        rf"^::: upload_progress\.{owner}\n.*\n?.*members: \[.*\b{member}\b", REFERENCE, re.MULTILINE
    )


# --- the pages for contributors -------------------------------------------------------------------

SOURCES = sorted((ROOT / "src" / "upload_progress").rglob("*.py"))
# In code type, and no names that the package defines.
OTHER_NAMES = {"None", "__init__.py", "await", "http.disconnect", "pyproject.toml", "static"}


def class_members() -> dict[str, set[str]]:
    """Return the methods, attributes and base classes of each class."""
    return {
        node.name: {name for item in node.body for name in defined_names(item)}
        | {ast.unparse(base).partition("[")[0] for base in node.bases}
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def defined_names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def has_member(members: dict[str, set[str]], name: str, member: str) -> bool:
    """Return whether the class, or one of its base classes, defines *member*."""
    found = members.get(name, set())
    bases = found & members.keys()
    return member in found or any(has_member(members, base, member) for base in bases)


def unknown_names(text: str) -> list[str]:
    """Return the names in code type that the package does not define."""
    members = class_members()
    modules = {part for path in SOURCES for part in path.with_suffix("").parts}
    functions = {
        name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.stmt)
        for name in defined_names(node)
    }
    known = {*members, *modules, *functions, *OTHER_NAMES, *UploadState}
    return [
        name
        for name in re.findall(r"`([\w.]+)(?:\(.*?\))?`", text)
        for first, _, last in [name.rpartition(".")]
        if name not in known
        if not (first in members and has_member(members, first, last))
        if not (first and set(name.split(".")) <= known and first not in members)
    ]


@pytest.mark.parametrize("page", ["architecture", "extending"])
def test_names_in_contributing_pages_exist(page: str) -> None:
    assert unknown_names(PAGES[f"docs/contributing/{page}.md"]) == []


def test_every_package_has_a_paragraph() -> None:
    page = PAGES["docs/contributing/architecture.md"].partition("## Packages\n")[2]
    described = {
        name
        for term in re.findall(r"^(`.*`)\n:   ", page, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", term)
    }

    assert {name for layer in layers() for name in layer} - described == set()


def test_unknown_names_are_found() -> None:
    text = "`Flusher.flush`, `flush()`, `_model.fold`, `Gone`, `Flusher.gone`, `_model.gone`"

    assert unknown_names(text) == ["Gone", "Flusher.gone", "_model.gone"]


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_work(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / link).exists(), link


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    included = {"docs/figures.md"}

    for page in PAGES.keys() - included:
        if page.startswith("docs/") and not page.startswith("docs/generated/"):
            assert f": {page.removeprefix('docs/')}\n" in navigation, page


# --- commands -------------------------------------------------------------------------------------

HELP = ROOT / "src" / "upload_progress" / "static" / "help"
EXAMPLES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "examples").rglob("*.py"))
}


def unknown_options(text: str) -> list[str]:
    """Return the options of commands in *text* that the help of the command does not have."""
    found = re.findall(r"upload-progress ([a-z]+)([^\n`|;&#]*)", text)
    known = {path.stem: path.read_text(encoding="utf-8") for path in HELP.glob("*.txt")}
    return [
        f"{command} {option}"
        for command, rest in found
        if command in known
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest)
        if option not in known[command]
    ]


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES])
def test_commands_have_only_options_that_exist(page: str) -> None:
    assert unknown_options({**PAGES, **EXAMPLES}[page]) == []


def test_option_that_does_not_exist_is_found() -> None:
    assert unknown_options("upload-progress watch --user a --wait URL") == ["watch --user"]
