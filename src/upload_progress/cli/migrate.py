"""``upload-progress migrate``."""

from asyncio import run

from psycopg import Error, OperationalError
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege, InvalidPassword

from upload_progress.backends.postgres.client import validate_url
from upload_progress.backends.postgres.schema import MigrationResult, migrate
from upload_progress.exceptions import NotAllowed, ServerUnreachable, UploadProgressError

__all__ = [
    "CannotMigrate",
    "migrated",
]

_FORBIDDEN = 403


class CannotMigrate(UploadProgressError):
    """The database does not take the tables: something else has their names, or it is too old."""


def migrated(url: str, schema: str) -> str:
    """Migrate, and return what to say of it.

    Raises:
        InvalidValue: The URL or the name of the schema is none.
        ServerUnreachable: There is no database.
        NotAllowed: It does not let us.
        CannotMigrate: It says something else.
    """
    validate_url(url)
    try:
        return _said(run(migrate(url, schema=schema)), schema)
    except (InsufficientPrivilege, InvalidPassword) as error:
        raise NotAllowed(_FORBIDDEN, _first_line(error)) from None
    except OperationalError as error:
        raise ServerUnreachable(_address(url), _first_line(error)) from None
    except Error as error:
        raise CannotMigrate(f"{_address(url)} says: {_first_line(error)}") from None


def _said(found: MigrationResult, schema: str) -> str:
    if found.before >= found.after:
        return f"The schema {schema!r} is up to date: version {found.after}."
    return f"The schema {schema!r} is at version {found.after} now; it was {found.before}."


def _address(url: str) -> str:
    """Return where *url* leads, without credentials."""
    parameters = conninfo_to_dict(url)
    host, port = parameters.get("host") or "localhost", parameters.get("port") or 5432
    return f"postgresql://{host}:{port}/{parameters.get('dbname') or ''}"


def _first_line(error: Error) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
