"""The documentation says what is so: its code runs, and nothing public is left out."""

from __future__ import annotations

import inspect
import re
import tomllib

import pytest
from attrs import fields

import upload_progress
from tests._support.paths import ROOT
from upload_progress import Limits, ProgressTracker, Retention, asgi, client, openapi, starlette
from upload_progress import exceptions as errors
from upload_progress import throttling as throttle
from upload_progress._model.models import ErrorCode, UploadState
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.cli import commands
from upload_progress.cli import exit_codes as exits
from upload_progress.starlette import progress_mount, progress_routes

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
GUIDE = PAGES["docs/server-guide.md"]
REFERENCE = PAGES["docs/reference/python.md"]

# --- nothing is left out --------------------------------------------------------------------------


def parameters(call: object) -> list[str]:
    """Return what may be given to *call* by name."""
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
    codes = {str(value) for name, value in vars(exits).items() if name in CODES}

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
    policies = [name for name in throttle.__all__ if name.startswith(("Every", "By"))]

    assert policies
    assert all(f"`{name}" in GUIDE for name in [*policies, "ThrottlePolicy", "Gate"])


def test_every_extra_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    for extra in project["optional-dependencies"]:
        assert f"upload-progress[{extra}]" in GUIDE


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_documented(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE


@pytest.mark.parametrize("word", [*UploadState, *ErrorCode])
def test_every_state_and_reason_is_documented(word: str) -> None:
    assert f"`{word}`" in PAGES["docs/states.md"]


def test_the_reference_shows_all_that_is_public() -> None:
    shown = re.findall(r"^::: upload_progress\.([\w.]+)", REFERENCE, re.MULTILINE)
    public = {
        *(name for name in upload_progress.__all__ if name not in {"__version__", *errors.__all__}),
        *(f"asgi.{name}" for name in asgi.__all__),
        *(f"starlette.{name}" for name in starlette.__all__ if name not in asgi.__all__),
        *(f"client.{name}" for name in client.__all__),
        *(f"openapi.{name}" for name in openapi.__all__),
    }

    assert public - set(shown) == set()


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / link).exists(), link
