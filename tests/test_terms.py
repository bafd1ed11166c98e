"""Names in the package use the usual technical terms, one word for one thing."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests._support.paths import ROOT

PACKAGE = ROOT / "src" / "upload_progress"
FILES = {
    str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Words that must not be part of a name, and the term to use instead.
REPLACED = {
    "subscription": "watcher watchers",
    "subscribe, publish, deliver, receive": "hear hears heard tell tells told untold",
    "subscriber": "feed feeds",
    "connection, connect, disconnect, reconnect": "dial dials dialled hang mend mended",
    "backoff": "patience rests resting",
    "message, request, reply": "letter plea pleas voucher vouch correspondence",
    "inbox": "box boxes",
    "transport": "post",
    "byte ranges": "spans strand strands gathered assembled",
    "discarded, rejected": "spoiled vain",
    "circuit breaker": "guard guards rouse breathe",
    "admission, registry, reader": "reception premises desk",
    "reconciler, follower, reaper": "recheck relay keeper",
    "broadcaster": "courier errand errands tour",
    "subscription table": "switchboard",
    "log limiter": "complaint complaints complain",
    "activity": "pulse",
    "heartbeat": "nudge nudged",
    "authenticator, registry, context": "door rooms guest seat afar",
    "mark_failed, load_prior_state": "condemn settle unsettled",
    "a noun": "whoever nobody somebody anew",
}
# The word is the technical term here, or the name belongs to another library.
ALLOWED = {"POST", "TypeGuard", "__attrs_post_init__", "__post_init__", "post"}
WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def replaced_names(text: str) -> Iterator[str]:
    """Yield the names in a source text that contain a replaced word, with the term to use."""
    terms = {word: term for term, words in REPLACED.items() for word in words.split()}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and token.string not in ALLOWED:
            for word in WORD.findall(token.string):
                if term := terms.get(word.lower()):
                    yield f"line {token.start[0]}: {token.string}: {term}"


@pytest.mark.parametrize("file", FILES)
def test_names_use_technical_terms(file: str) -> None:
    assert list(replaced_names(FILES[file])) == []


@pytest.mark.parametrize("file", FILES)
def test_modules_have_technical_names(file: str) -> None:
    words = re.findall(r"[a-z]+", file)

    assert not {*words} & {word for words in REPLACED.values() for word in words.split()}


def test_replaced_words_are_found_in_every_spelling() -> None:
    text = "def hear_all(box):\n    TypeGuard = _Feed = WATCHERS = inbox\n"

    assert list(replaced_names(text)) == [
        "line 1: hear_all: subscribe, publish, deliver, receive",
        "line 1: box: inbox",
        "line 2: _Feed: subscriber",
        "line 2: WATCHERS: subscription",
    ]


def test_class_names_are_unique() -> None:
    names = [
        name for text in FILES.values() for name in re.findall(r"^class (\w+)", text, re.MULTILINE)
    ]

    assert sorted({name for name in names if names.count(name) > 1}) == []
