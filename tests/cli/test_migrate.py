"""``upload-progress migrate``, as a person meets it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS
from tests._support.server_processes import free_port
from upload_progress.cli import commands
from upload_progress.cli.migrate import CannotMigrate, migrated
from upload_progress.exceptions import InvalidValue, NotAllowed, ServerUnreachable

SCHEMA = "by_command"


@pytest.fixture
def database(postgres_url: str) -> Iterator[psycopg.Connection]:
    """Yield a connection; what is made there goes."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection
        drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA))
        connection.execute(drop)


def test_it_says_what_it_did(postgres_url: str, database: psycopg.Connection) -> None:
    command = [*COMMAND, "migrate", postgres_url, "--schema", SCHEMA]
    said = [
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=DEADLINE_SECONDS
        ).stdout
        for _ in range(2)
    ]

    assert said == [
        f"The schema '{SCHEMA}' is at version 1 now; it was 0.\n",
        f"The schema '{SCHEMA}' is up to date: version 1.\n",
    ]


def test_it_is_a_command(
    postgres_url: str, database: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.migrate(postgres_url, schema=SCHEMA)

    assert "at version 1 now" in capsys.readouterr().out


def test_a_database_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    url = f"postgresql://u:secret@127.0.0.1:{port}/d"
    with pytest.raises(ServerUnreachable) as caught:
        migrated(url, SCHEMA)

    assert str(caught.value).startswith(f"postgresql://127.0.0.1:{port}/d cannot be reached: ")
    assert "secret" not in str(caught.value)


def test_what_is_no_database_is_refused() -> None:
    for url, schema in (("nonsense", SCHEMA), ("postgresql://127.0.0.1", "")):
        with pytest.raises(InvalidValue):
            migrated(url, schema)


def test_a_role_that_may_not_is_told_so(postgres_url: str, database: psycopg.Connection) -> None:
    database.execute("DROP ROLE IF EXISTS stranger")
    database.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    try:
        with pytest.raises(NotAllowed, match="permission denied"):
            migrated(make_conninfo(postgres_url, user="stranger", password="stranger"), SCHEMA)
    finally:
        database.execute("DROP ROLE stranger")


def test_what_has_the_names_already_stays(postgres_url: str, database: psycopg.Connection) -> None:
    database.execute(f"CREATE SCHEMA {SCHEMA}")
    database.execute(f"CREATE TABLE {SCHEMA}.transfers (mine integer)")

    with pytest.raises(CannotMigrate, match='says: relation "transfers" already exists'):
        migrated(postgres_url, SCHEMA)

    tables = database.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = %s", (SCHEMA,)
    ).fetchone()
    assert tables == (1,)
