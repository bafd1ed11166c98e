"""Code examples in the documentation and in docstrings: finding and running them."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from textwrap import dedent
from types import ModuleType

from attrs import frozen

import upload_progress

__all__ = ["Example", "docstring_examples", "fenced_examples", "modules", "run_example"]

FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# A line that ends with "::", then an indented block (reStructuredText).
LITERAL = re.compile(r"^( *)[^\n]*::\n\n((?:\1 +\S[^\n]*\n|\n)+)", re.MULTILINE)


@frozen
class Example:
    """A block of Python code in a text.

    Attributes:
        name: Page or object, and the number of the block in it.
        code: The code, without indentation.
        module: The module that contains the docstring; None for a page.
    """

    name: str
    code: str
    module: ModuleType | None = None

    def __str__(self) -> str:
        """Return the name, for pytest."""
        return self.name


def fenced_examples(name: str, text: str) -> list[Example]:
    """Return the fenced Python blocks of a page."""
    blocks = enumerate(FENCE.findall(text), 1)
    return [Example(f"{name}:{number}", dedent(code)) for number, (_, code) in blocks]


def docstring_examples() -> list[Example]:
    """Return the code blocks in the docstrings of all public objects."""
    return [
        Example(f"{name}:{number}", code, module)
        for module, name, text in _public_docstrings()
        for number, code in enumerate(_blocks(text), 1)
    ]


async def run_example(
    example: Example, context: dict[str, object], *, compile_only: bool = False
) -> None:
    """Run a block, which may use ``await``, and keep the names that it defines in *context*.

    Args:
        example: The block; the names of its module are defined as well.
        context: Names that it may use.
        compile_only: Whether only its syntax is checked.
    """
    module = {} if example.module is None else vars(example.module)
    for name, value in module.items():
        context.setdefault(name, value)
    context["__name__"] = "example"
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile(example.code, example.name, "exec", flags=flags, dont_inherit=True)
    if not compile_only:
        result = eval(compiled, context)  # noqa: S307  # our own documentation
        if inspect.isawaitable(result):
            await result


def _blocks(text: str) -> Iterator[str]:
    text = inspect.cleandoc(text) + "\n"
    for _, code in FENCE.findall(text):
        yield dedent(code)
    for _, code in LITERAL.findall(text):
        # A diagram or a table is no code.
        if ">>>" not in code and _is_code(dedent(code)):
            yield dedent(code)


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def _public_docstrings() -> Iterator[tuple[ModuleType, str, str]]:
    """Yield the docstrings of public modules, of their classes and functions, and of methods."""
    for module in modules():
        yield module, module.__name__, module.__doc__ or ""
        for name, found in vars(module).items():
            if name.startswith("_") or getattr(found, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(found) or inspect.isfunction(found):
                yield module, f"{module.__name__}.{name}", found.__doc__ or ""
            for method, member in vars(found).items() if inspect.isclass(found) else ():
                function = inspect.unwrap(getattr(member, "__func__", member))
                if inspect.isfunction(function) and not method.startswith("_"):
                    where = f"{module.__name__}.{name}.{method}"
                    yield module, where, function.__doc__ or ""


def modules() -> Iterator[ModuleType]:
    """Yield all modules of the package, except for programs."""
    yield upload_progress
    prefix = f"{upload_progress.__name__}."
    for found in pkgutil.walk_packages(upload_progress.__path__, prefix):
        if not found.name.endswith("__main__"):
            yield import_module(found.name)
