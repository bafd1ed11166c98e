"""Questions of new readers, and where the documentation answers them: at most two clicks away.

The first click opens a group of the navigation and one of its pages, the second one its heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests._support.paths import ROOT

NAVIGATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

QUESTIONS = [
    ("How do I install it?", "server-guide.md", "Install", "pip install"),
    ("I use FastAPI with JWT. What do I add?", "guides/frameworks.md", "FastAPI", "jwt"),
    ("I start it with fastapi run.", "guides/frameworks.md", "FastAPI", "--entrypoint app:app"),
    ("Does it work with Django?", "guides/frameworks.md", "Django", "asgi"),
    ("Flask?", "guides/frameworks.md", "Flask and other WSGI applications", "wsgi"),
    ("My application has a prefix.", "guides/frameworks.md", "Under a prefix", "root_path"),
    ("My page has another origin.", "guides/frameworks.md", "A page of another origin", "cors"),
    ("Nothing moves behind nginx.", "server-guide.md", "Behind nginx", "proxy_request_buffering"),
    ("Traefik cuts my uploads.", "operations/proxies.md", "Traefik", "readtimeout"),
    ("I get 404.", "operations/troubleshooting.md", "I get 404 for an upload", "store"),
    ("The bar jumps.", "operations/troubleshooting.md", "The bar jumps from 0 to 100 %", "proxy"),
    ("How do I show a bar?", "guides/web-component.md", "Web Component", "<script"),
    ("In my language?", "guides/web-component.md", "Languages", "texts"),
    ("How often is progress reported?", "server-guide.md", "Report frequency", "policy"),
    ("Which store do I need?", "guides/many-workers.md", "Choosing a backend", "redis"),
    ("How do I get events in RabbitMQ?", "guides/events.md", "RabbitMQ", "exchange"),
    ("Who can see an upload?", "security.md", "Ownership", "404"),
    ("Are there limits for clients?", "server-guide.md", "Limits", "tracked_per_owner"),
    ("Are tus uploads one upload?", "guides/protocols.md", "Uploads in several requests", "tus"),
    ("How do I show a virus scan?", "tutorial.md", "Report processing stages", "stage"),
    ("Can users cancel?", "tutorial.md", "Announce and cancel an upload", "cancel"),
    ("What if a worker is killed?", "faults.md", "Several workers", "worker_lost"),
    ("And on Kubernetes?", "operations/kubernetes.md", "Updates and restarts", "terminationgrace"),
    ("How do I test my application?", "guides/testing.md", "An upload in any state", "pytest"),
    ("How do I upload in CI?", "guides/command-line.md", "In GitHub Actions", "upload-progress"),
    ("What does it cost?", "performance.md", "Design", "addition"),
    ("What is in a snapshot?", "reference/http.md", "UploadProgress", "bytes_transferred"),
    ("Which Python do I need?", "server-guide.md", "Install", "python 3.11"),
    ("Does it work in Safari?", "guides/web-component.md", "Browsers", "safari"),
    ("And with aiohttp?", "guides/frameworks.md", "aiohttp", "disconnect_errors"),
    ("How do I limit the size?", "server-guide.md", "Limits", "413"),
    ("How long are uploads kept?", "server-guide.md", "Limits", "retention"),
    ("How do I go on after a cut?", "guides/web-component.md", "Resuming", "tus"),
    ("Can a Celery task report?", "guides/task-queues.md", "Celery", "celery_app"),
    ("Is there a Grafana panel?", "operations/monitoring.md", "Dashboard and alerts", "grafana"),
    ("My load balancer cuts.", "operations/proxies.md", "Load balancers of a cloud", "idle"),
    ("Which variables are there?", "operations/settings.md", "Variables", "variables.md"),
    ("When is it supported until?", "contributing/releases.md", "Versions", "support"),
    ("Can I write a store?", "contributing/extending.md", "Add a backend", "storecontract"),
]


def groups() -> Iterator[tuple[str, str]]:
    """Yield each page of the navigation with its group."""
    for group in NAVIGATION:
        for title, pages in group.items():
            for page in pages:
                yield next(iter(page.values())), title


def section(text: str, heading: str) -> str:
    """Return what is under a heading, with the parts of it."""
    found = re.search(rf"^(#+) {re.escape(heading)}( {{.*}})?$", text, re.MULTILINE)
    assert found, f"no heading {heading!r}"
    level = len(found[1])
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{level}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


@pytest.mark.parametrize(
    ("question", "page", "heading", "word"), QUESTIONS, ids=[each[0] for each in QUESTIONS]
)
def test_question_is_answered(question: str, page: str, heading: str, word: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")

    assert page in dict(groups()), question
    assert word in section(text, heading).lower()
