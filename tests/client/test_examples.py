"""The examples in the guide and in the docstrings of the clients are executed."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from textwrap import dedent
from types import FunctionType

import anyio
import pytest

from tests._support.paths import ROOT
from upload_progress.client import AsyncProgressClient, ProgressClient

GUIDE = (ROOT / "docs" / "guides" / "python-client.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SIZE_BYTES = 100_000


def examples(text: str) -> str:
    """Return all examples in *text* as one program."""
    blocks = [dedent(block) for _, block in BLOCK.findall(text)]
    assert blocks
    return "\n".join(blocks)


@pytest.mark.parametrize(
    "text",
    [
        GUIDE,
        f"{inspect.getdoc(AsyncProgressClient)}",
        f"{inspect.getdoc(ProgressClient)}",
    ],
    ids=["guide", "AsyncProgressClient", "ProgressClient"],
)
def test_examples_run(
    text: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "app.tar.gz").write_bytes(bytes(SIZE_BYTES))
    monkeypatch.chdir(tmp_path)
    program = examples(text).replace("https://host", url)
    code = compile(program, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {
        "AsyncProgressClient": AsyncProgressClient,
        "ProgressClient": ProgressClient,
        "token": "t0ken",
        "password": "ann",
    }

    async def run() -> None:
        result = FunctionType(code, names)()
        if inspect.iscoroutine(result):
            await result

    anyio.run(run)

    assert re.search(r"\b200\b|completed", capsys.readouterr().out)
