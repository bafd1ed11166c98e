"""The command ``migrate``: creates or updates the tables of a store in PostgreSQL."""

from asyncio import run

from psycopg import Error, OperationalError
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege, InvalidPassword

from upload_progress.backends.postgres.client import validate_url
from upload_progress.backends.postgres.schema import MigrationResult, migrate
from upload_progress.exceptions import NotAllowed, ServerUnreachable, UploadProgressError

__all__ = ["MigrationFailed", "run_migration"]

_FORBIDDEN = 403


class MigrationFailed(UploadProgressError):
    """The database rejected the tables: their names are in use, or its version is too old."""


def run_migration(url: str, schema: str) -> str:
    """Migrate the schema, and return a sentence with its version.

    Raises:
        InvalidValue: The URL or the schema name is not valid.
        ServerUnreachable: The database cannot be reached.
        NotAllowed: The role may not log in or create the tables.
        MigrationFailed: The database reported another error.
    """
    validate_url(url)
    try:
        return _summary(run(migrate(url, schema=schema)), schema)
    except (InsufficientPrivilege, InvalidPassword) as error:
        raise NotAllowed(_FORBIDDEN, _first_line(error)) from None
    except OperationalError as error:
        raise ServerUnreachable(_address(url), _first_line(error)) from None
    except Error as error:
        raise MigrationFailed(f"{_address(url)}: {_first_line(error)}") from None


def _summary(result: MigrationResult, schema: str) -> str:
    if result.before >= result.after:
        return f"The schema {schema!r} is up to date: version {result.after}."
    return f"Migrated the schema {schema!r} from version {result.before} to {result.after}."


def _address(url: str) -> str:
    """Return the URL without credentials."""
    parameters = conninfo_to_dict(url)
    host, port = parameters.get("host") or "localhost", parameters.get("port") or 5432
    return f"postgresql://{host}:{port}/{parameters.get('dbname') or ''}"


def _first_line(error: Error) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
