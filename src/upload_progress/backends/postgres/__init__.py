"""PostgreSQL: sessions in tables, events by ``NOTIFY``. Extra: ``upload-progress[postgres]``."""

from upload_progress._runtime.optional import require

require("psycopg", extra="postgres")

from upload_progress.backends.postgres.publisher import PostgresPublisher
from upload_progress.backends.postgres.schema import migrate
from upload_progress.backends.postgres.store import PostgresStore

__all__ = ["PostgresPublisher", "PostgresStore", "migrate"]
