"""Faults and users of RabbitMQ that only its command line can create."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests._support.server_processes import ServerProcess

__all__ = ["add_user", "clear_memory_alarm", "evaluate", "set_memory_alarm"]

CONTROL_SECONDS: Final = 180
ALARM: Final = "{resource_limit, memory, node()}"


def evaluate(server: ServerProcess, expression: str) -> None:
    """Evaluate an Erlang expression in the broker. The command takes seconds, whatever it does."""
    program = Path(server.command[0]).with_name("rabbitmqctl")
    subprocess.run(
        [program, "-q", "eval", expression],
        env={**os.environ, **server.environment},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=CONTROL_SECONDS,
        **({"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}),  # type: ignore[call-overload]  # as Popen has them
    )


def add_user(
    server: ServerProcess, name: str, *, configure: str, write: str, read: str, topics: str = ".*"
) -> None:
    """Add a user, whose password is its name, with rights on names that match the patterns.

    It may publish and receive only events whose routing keys match *topics*.
    """
    user, actor = _binary(name), _binary("tests")
    rights = ", ".join(map(_binary, ("/", configure, write, read)))
    routing = ", ".join(map(_binary, ("/", "upload-progress", topics, topics)))
    users = "rabbit_auth_backend_internal"
    evaluate(
        server,
        f"ok = {users}:add_user({user}, {user}, {actor}),"
        f" ok = {users}:set_permissions({user}, {rights}, {actor}),"
        f" ok = {users}:set_topic_permissions({user}, {routing}, {actor}).",
    )


def _binary(text: str) -> str:
    """Return *text* as a binary of Erlang."""
    escaped = text.replace("\\", r"\\")
    return f'<<"{escaped}">>'


def set_memory_alarm(server: ServerProcess) -> None:
    """Raise the memory alarm: the broker stops reading from connections that publish."""
    evaluate(server, f"rabbit_alarm:set_alarm({{{ALARM}, []}}).")


def clear_memory_alarm(server: ServerProcess) -> None:
    evaluate(server, f"rabbit_alarm:clear_alarm({ALARM}).")
