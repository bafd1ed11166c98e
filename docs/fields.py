"""A griffe extension: shows the ``__init__`` that attrs generates, and code blocks after ``::``."""

from __future__ import annotations

import re
from typing import Any

from griffe import (
    Attribute,
    Class,
    Expr,
    Extension,
    Function,
    Object,
    Parameter,
    ParameterKind,
    Parameters,
)


class AttrsFields(Extension):
    """Adds ``__init__`` to each class that is decorated with ``define`` or ``frozen``.

    Docstrings become Markdown: ``::``, which introduces a code block, becomes a colon, or is
    omitted if the paragraph consists of ``::`` only. A doctest becomes a fenced block.
    """

    def on_object(self, *, obj: Object, **_kwargs: Any) -> None:  # noqa: ANN401  # griffe's signature
        """Convert a docstring to Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = _markdown(obj.docstring.value)

    def on_class(self, *, cls: Class, **_kwargs: Any) -> None:  # noqa: ANN401  # griffe's signature
        """Add ``__init__`` to an attrs class."""
        decorators = [str(decorator.value).partition("(")[0] for decorator in cls.decorators]
        if not {"define", "frozen"}.isdisjoint(decorators) and "__init__" not in cls.members:
            cls.set_member("__init__", _initialiser(cls))


def _markdown(text: str) -> str:
    text = re.sub(r"^ *::$", "", text, flags=re.MULTILINE)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    # From the first prompt to the next line that is empty or less indented.
    doctest = r"^( *)(>>> .*(?:\n\1.+)*)"
    return re.sub(doctest, r"\1```pycon\n\1\2\n\1```", text, flags=re.MULTILINE)


def _initialiser(cls: Class) -> Function:
    parameters = [
        Parameter(
            attribute.name.lstrip("_"),
            annotation=attribute.annotation,
            kind=ParameterKind.keyword_only if _is_keyword_only(cls) else _EITHER,
            default=_default(attribute),
        )
        for attribute in cls.attributes.values()
        if attribute.annotation is not None
        and "property" not in attribute.labels
        and "init=False" not in _text(attribute.value)
    ]
    return Function("__init__", parameters=Parameters(*parameters), parent=cls)


_EITHER = ParameterKind.positional_or_keyword


def _is_keyword_only(cls: Class) -> bool:
    return any("kw_only=True" in _text(decorator.value) for decorator in cls.decorators)


def _default(attribute: Attribute) -> str | None:
    """Return the default as source text: ``Limits()`` for ``field(factory=Limits)``."""
    text = _text(attribute.value)
    if not text.startswith("field("):
        return text or None
    for name, suffix in (("default=", ""), ("factory=", "()")):
        if name in text:
            return text.partition(name)[2].partition(",")[0].rstrip(")") + suffix
    return None


def _text(value: str | Expr | None) -> str:
    return "" if value is None else str(value)
