"""What PostgreSQL does for ``PostgresStore``. In each statement ``{schema}`` is a quoted name.

A row is a record, and an upload is the rows of its newest attempt. What has to be looked at has
``due_at``: what has ended then is forgotten, what waits has then expired. What a worker receives
has none unless it was handed out as lost, and lives by the lease of its worker. So the rows that
change most often change nothing that is indexed, and PostgreSQL writes them in place.

A row whose ``format`` is not known here is of a newer release, and is left as it is.
"""

from typing import Final

__all__ = [
    "CLAIM",
    "CLAIM_LOST",
    "COLUMNS",
    "DROP",
    "DROP_OLD",
    "LIST",
    "LOAD",
    "MIGRATIONS",
    "RELEASE",
    "RENEW",
    "SAVE",
]

MIGRATIONS: Final = (
    """
CREATE TABLE {schema}.transfers (
    owner bytea NOT NULL,
    upload_id text COLLATE "C" NOT NULL,
    transfer_id text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    sequence bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    at double precision NOT NULL,
    created_at double precision NOT NULL,
    group_name bytea,
    worker text COLLATE "C",
    due_at timestamptz,
    format smallint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (owner, upload_id, transfer_id)
) WITH (fillfactor = 70);
CREATE INDEX ON {schema}.transfers (worker) WHERE kind = 'R';
CREATE INDEX ON {schema}.transfers (due_at) WHERE kind IN ('N', 'P');
CREATE INDEX ON {schema}.transfers (due_at) WHERE kind IN ('C', 'D', 'S');
CREATE TABLE {schema}.leases (
    worker text COLLATE "C" PRIMARY KEY,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.transfers IS 'upload-progress: what is known of each upload';
COMMENT ON COLUMN {schema}.transfers.kind IS
    'N pending, R receiving or processing, P paused, C or D completed, S otherwise';
""",
)
"""Each brings the schema to its number, counted from 1. What was released never changes."""

SAVE: Final = """
WITH leased AS (
    INSERT INTO {schema}.leases (worker, until)
    SELECT worker, now() + make_interval(secs => %(newborn)s)
    FROM unnest(%(workers)b::text[]) AS batch (worker)
    ON CONFLICT (worker) DO NOTHING
)
INSERT INTO {schema}.transfers AS known (
    owner, upload_id, transfer_id, attempt, sequence, kind, at, created_at, group_name, worker,
    record, format, due_at
)
SELECT batch.*, 1, CASE
    WHEN kind IN ('C', 'D', 'S') THEN now() + make_interval(secs => %(ended)s)
    WHEN kind IN ('N', 'P') THEN to_timestamp(at + %(waiting)s)
END
FROM unnest(
    %(owner)b::bytea[], %(upload_id)b::text[], %(transfer_id)b::text[], %(attempt)b::bigint[],
    %(sequence)b::bigint[], %(kind)b::text[], %(at)b::double precision[],
    %(created_at)b::double precision[], %(group_name)b::bytea[], %(worker)b::text[],
    %(record)b::bytea[]
) AS batch (
    owner, upload_id, transfer_id, attempt, sequence, kind, at, created_at, group_name, worker,
    record
)
ON CONFLICT (owner, upload_id, transfer_id) DO UPDATE SET
    attempt = excluded.attempt, sequence = excluded.sequence, kind = excluded.kind,
    at = excluded.at, created_at = excluded.created_at, group_name = excluded.group_name,
    worker = excluded.worker, record = excluded.record, format = excluded.format,
    due_at = excluded.due_at
WHERE known.format <= 1 AND (
    excluded.attempt > known.attempt
    OR excluded.attempt = known.attempt
    AND excluded.sequence > known.sequence
    AND known.kind NOT IN ('C', 'D', 'S')
)
"""

DROP_OLD: Final = """
DELETE FROM {schema}.transfers AS known
USING unnest(%b::bytea[], %b::text[], %b::bigint[]) AS batch (owner, upload_id, attempt)
WHERE known.owner = batch.owner AND known.upload_id = batch.upload_id
    AND known.attempt < batch.attempt AND known.format <= 1
"""

RENEW: Final = """
WITH gone AS (
    DELETE FROM {schema}.leases AS lease WHERE until < now() - interval '1 hour' AND NOT EXISTS (
        SELECT FROM {schema}.transfers AS known
        WHERE known.worker = lease.worker AND known.kind = 'R'
    )
)
INSERT INTO {schema}.leases (worker, until) VALUES (%s, now() + make_interval(secs => %s))
ON CONFLICT (worker) DO UPDATE SET until = excluded.until
"""

COLUMNS: Final = """
    known.owner, known.upload_id, known.transfer_id, known.attempt, known.sequence, known.format,
    known.record,
    extract(epoch FROM lease.until - clock_timestamp())::double precision
"""

LOAD: Final = """
SELECT {columns}, 0::double precision
FROM unnest(%b::bytea[], %b::text[]) AS wanted (owner, upload_id)
JOIN {schema}.transfers AS known USING (owner, upload_id)
LEFT JOIN {schema}.leases AS lease USING (worker)
"""

LIST: Final = """
WITH mine AS (
    SELECT *, max(attempt) OVER (PARTITION BY upload_id) AS newest
    FROM {schema}.transfers WHERE owner = %(owner)s
), judged AS (
    SELECT
        upload_id,
        min(created_at) AS created_at,
        bool_or(group_name = %(group)s::bytea) AS is_wanted,
        bool_or(kind IN ('R', 'P')) AND NOT bool_or(kind = 'D') AS is_open,
        min(at) FILTER (WHERE kind = 'S') AS stopped,
        max(at) FILTER (WHERE kind IN ('C', 'D')) AS completed
    FROM mine WHERE attempt = newest GROUP BY upload_id
), page AS (
    SELECT upload_id, created_at FROM judged
    WHERE (%(group)s::bytea IS NULL OR is_wanted)
        AND coalesce(%(since)s::double precision <= CASE
            WHEN stopped IS NOT NULL AND (is_open OR completed IS NULL OR stopped < completed)
            THEN stopped
            WHEN NOT is_open THEN completed
        END, true)
        AND (
            %(before)s::double precision IS NULL
            OR (created_at, upload_id) < (%(before)s, %(upload_id)s COLLATE "C")
        )
    ORDER BY created_at DESC, upload_id DESC LIMIT %(limit)s
)
SELECT {columns}, page.created_at
FROM page
JOIN {schema}.transfers AS known ON known.owner = %(owner)s AND known.upload_id = page.upload_id
LEFT JOIN {schema}.leases AS lease USING (worker)
ORDER BY page.created_at DESC, page.upload_id DESC
"""

CLAIM: Final = """
UPDATE {schema}.transfers AS known SET due_at = now() + make_interval(secs => %s)
FROM (
    SELECT owner, upload_id, transfer_id FROM {schema}.transfers
    WHERE due_at <= now() AND format <= 1 AND {kinds}
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
) AS due
WHERE known.owner = due.owner AND known.upload_id = due.upload_id
    AND known.transfer_id = due.transfer_id
RETURNING known.owner, known.upload_id, known.transfer_id
"""
"""What was handed out comes again a while later, if nobody has ended it."""

DROP: Final = """
DELETE FROM {schema}.transfers AS known
USING unnest(%b::bytea[], %b::text[], %b::text[], %b::bigint[], %b::bigint[])
    AS seen (owner, upload_id, transfer_id, attempt, sequence)
WHERE known.owner = seen.owner AND known.upload_id = seen.upload_id
    AND known.transfer_id = seen.transfer_id
    AND known.attempt = seen.attempt AND known.sequence = seen.sequence
"""

CLAIM_LOST: Final = """
UPDATE {schema}.transfers AS known SET due_at = now() + make_interval(secs => %s)
FROM (
    SELECT received.owner, received.upload_id, received.transfer_id
    FROM {schema}.leases AS lease
    JOIN {schema}.transfers AS received ON received.worker = lease.worker AND received.kind = 'R'
    WHERE lease.until <= now() AND received.format <= 1
        AND (received.due_at IS NULL OR received.due_at <= now())
    LIMIT %s FOR UPDATE OF received SKIP LOCKED
) AS due
WHERE known.owner = due.owner AND known.upload_id = due.upload_id
    AND known.transfer_id = due.transfer_id
RETURNING known.owner, known.upload_id, known.transfer_id
"""
"""The same for what a worker received whose lease has run out."""

RELEASE: Final = """
UPDATE {schema}.transfers AS known SET worker = NULL
FROM unnest(%b::bytea[], %b::text[], %b::text[], %b::bigint[], %b::bigint[])
    AS seen (owner, upload_id, transfer_id, attempt, sequence)
WHERE known.owner = seen.owner AND known.upload_id = seen.upload_id
    AND known.transfer_id = seen.transfer_id
    AND known.attempt = seen.attempt AND known.sequence = seen.sequence
"""
"""Of an upload that ended otherwise, the worker that is gone need not be looked after any more."""
