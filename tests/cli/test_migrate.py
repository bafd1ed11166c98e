"""The command ``upload-progress migrate``."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS
from tests._support.server_processes import free_port
from upload_progress.backends.postgres.schema import LATEST_VERSION
from upload_progress.cli import commands
from upload_progress.cli.migrate import MigrationFailed, run_migration
from upload_progress.exceptions import InvalidValue, NotAllowed, ServerUnreachable

SCHEMA = "by_command"


@pytest.fixture
def database(postgres_url: str) -> Iterator[psycopg.Connection]:
    """Yield a connection, and drop the schema afterwards."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection
        drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA))
        connection.execute(drop)


def test_migrate_prints_the_version(postgres_url: str, database: psycopg.Connection) -> None:
    command = [*COMMAND, "migrate", postgres_url, "--schema", SCHEMA]
    outputs = [
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=DEADLINE_SECONDS
        ).stdout
        for _ in range(2)
    ]

    assert outputs == [
        f"Migrated the schema '{SCHEMA}' from version 0 to {LATEST_VERSION}.\n",
        f"The schema '{SCHEMA}' is up to date: version {LATEST_VERSION}.\n",
    ]


def test_command_prints_the_version(
    postgres_url: str, database: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.migrate(postgres_url, schema=SCHEMA)

    assert f"from version 0 to {LATEST_VERSION}" in capsys.readouterr().out


def test_unreachable_database_is_named_without_the_password() -> None:
    port = free_port()
    url = f"postgresql://u:secret@127.0.0.1:{port}/d"
    with pytest.raises(ServerUnreachable) as caught:
        run_migration(url, SCHEMA)

    assert str(caught.value).startswith(f"postgresql://127.0.0.1:{port}/d cannot be reached: ")
    assert "secret" not in str(caught.value)


def test_invalid_url_or_schema_is_rejected() -> None:
    for url, schema in (("nonsense", SCHEMA), ("postgresql://127.0.0.1", "")):
        with pytest.raises(InvalidValue):
            run_migration(url, schema)


def test_role_without_permission_is_not_allowed(
    postgres_url: str, database: psycopg.Connection
) -> None:
    database.execute("DROP ROLE IF EXISTS unprivileged")
    database.execute("CREATE ROLE unprivileged LOGIN PASSWORD 'unprivileged'")
    try:
        with pytest.raises(NotAllowed, match="permission denied"):
            run_migration(
                make_conninfo(postgres_url, user="unprivileged", password="unprivileged"), SCHEMA
            )
    finally:
        database.execute("DROP ROLE unprivileged")


def test_existing_tables_of_others_are_kept(
    postgres_url: str, database: psycopg.Connection
) -> None:
    database.execute(f"CREATE SCHEMA {SCHEMA}")
    database.execute(f"CREATE TABLE {SCHEMA}.transfers (mine integer)")

    with pytest.raises(MigrationFailed, match='relation "transfers" already exists'):
        run_migration(postgres_url, SCHEMA)

    tables = database.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = %s", (SCHEMA,)
    ).fetchone()
    assert tables == (1,)
