"""Faults and users of RabbitMQ that only its command line can create."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests._support.server_processes import ServerProcess

__all__ = ["add_user", "clear_memory_alarm", "evaluate", "set_memory_alarm", "set_topics"]

CONTROL_SECONDS: Final = 60
ALARM: Final = "{resource_limit, memory, node()}"


def evaluate(server: ServerProcess, expression: str) -> None:
    """Evaluate an Erlang expression in the broker."""
    _control(server, "eval", expression)


def add_user(server: ServerProcess, name: str, *, configure: str, write: str, read: str) -> None:
    """Add a user, whose password is its name, with rights on names that match the patterns."""
    _control(server, "add_user", name, name)
    _control(server, "set_permissions", "-p", "/", name, configure, write, read)


def set_topics(server: ServerProcess, user: str, topics: str) -> None:
    """Let a user publish and receive only events whose routing keys match the pattern."""
    _control(server, "set_topic_permissions", "-p", "/", user, "upload-progress", topics, topics)


def _control(server: ServerProcess, *arguments: str) -> None:
    program = Path(server.command[0]).with_name("rabbitmqctl")
    subprocess.run(
        [program, "-q", *arguments],
        env={**os.environ, **server.environment},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=CONTROL_SECONDS,
        **({"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}),  # type: ignore[call-overload]  # as Popen has them
    )


def set_memory_alarm(server: ServerProcess) -> None:
    """Raise the memory alarm: the broker stops reading from connections that publish."""
    evaluate(server, f"rabbit_alarm:set_alarm({{{ALARM}, []}}).")


def clear_memory_alarm(server: ServerProcess) -> None:
    evaluate(server, f"rabbit_alarm:clear_alarm({ALARM}).")
