"""The SQL of ``PostgresStore``. In each statement ``{schema}`` is replaced by a quoted name.

A row is a record, and an upload is the rows of its newest attempt. ``due_at`` is when a row has to
be visited: an ended upload is deleted then, a waiting one has expired. A row whose transfer is
running has no ``due_at`` until it was claimed as lost; whether it is lost depends on the lease of
its worker. So the rows that change most often change no indexed column, and PostgreSQL can update
them in place (heap-only tuples, see "Database Physical Storage" in its manual).

``state_code`` and ``changed_at`` are defined in ``upload_progress.backends.store_records``. A row
with an unknown ``format`` was written by a newer release, and is left as it is.
"""

from typing import Final

__all__ = [
    "ANNOUNCE",
    "CLAIM",
    "CLAIM_LOST",
    "COLUMNS",
    "DROP",
    "DROP_OLD",
    "LIMIT_OWNERS",
    "LIST",
    "LIST_OPEN",
    "LOAD",
    "MIGRATIONS",
    "RELEASE",
    "RENEW",
    "RUNNING",
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
    state_code text COLLATE "C" NOT NULL,
    changed_at double precision NOT NULL,
    created_at double precision NOT NULL,
    group_name bytea,
    worker text COLLATE "C",
    due_at timestamptz,
    format smallint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (owner, upload_id, transfer_id)
) WITH (fillfactor = 70);
CREATE INDEX ON {schema}.transfers (worker) WHERE state_code = 'R';
CREATE INDEX ON {schema}.transfers (due_at) WHERE state_code IN ('N', 'P');
CREATE INDEX ON {schema}.transfers (due_at) WHERE state_code IN ('C', 'D', 'S');
CREATE TABLE {schema}.leases (
    worker text COLLATE "C" PRIMARY KEY,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.transfers IS 'upload-progress: one row for each transfer of an upload';
COMMENT ON COLUMN {schema}.transfers.state_code IS
    'N pending, R receiving or processing, P paused, C or D completed, S otherwise';
""",
    """
CREATE INDEX ON {schema}.transfers (owner) WHERE state_code = 'N';
CREATE FUNCTION {schema}.count_pending(bytea) RETURNS bigint LANGUAGE plpgsql AS $count_pending$
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtext('upload_progress pending'), hashtext(encode($1, 'hex'))
    );
    RETURN (
        SELECT count(*) FROM {schema}.transfers AS known
        WHERE known.owner = $1 AND known.state_code = 'N' AND NOT EXISTS (
            SELECT FROM {schema}.transfers AS other
            WHERE other.owner = known.owner AND other.upload_id = known.upload_id
                AND other.state_code <> 'N'
        )
    );
END
$count_pending$;
""",
    """
ALTER TABLE {schema}.leases
    ADD COLUMN renewed_at timestamptz, ADD COLUMN seconds double precision,
    ADD COLUMN resumed_at timestamptz;
COMMENT ON COLUMN {schema}.leases.resumed_at IS
    'the newest renewal of any worker after a pause: since then each worker has a full lease';
""",
    """
CREATE INDEX ON {schema}.transfers (owner, created_at, upload_id);
""",
    """
CREATE INDEX ON {schema}.transfers (owner, upload_id) WHERE state_code IN ('N', 'P', 'R');
""",
)
"""Migration ``n``, counted from 1, brings the schema to version ``n``. Add; never change one."""

_LEASED: Final = """
WITH leased AS (
    INSERT INTO {schema}.leases (worker, until)
    SELECT worker, now() + make_interval(secs => seconds)
    FROM unnest(%(workers)b::text[], %(leases)b::double precision[]) AS batch (worker, seconds)
    ON CONFLICT (worker) DO NOTHING
)
"""
_INSERT: Final = """
INSERT INTO {schema}.transfers AS known (
    owner, upload_id, transfer_id, attempt, sequence, state_code, changed_at, created_at,
    group_name, worker, record, format, due_at
)
SELECT batch.*, 1, CASE
    WHEN state_code IN ('C', 'D', 'S') THEN now() + make_interval(secs => %(ended)s)
    WHEN state_code IN ('N', 'P') THEN now() + make_interval(secs => %(waiting)s)
END
FROM unnest(
    %(owner)b::bytea[], %(upload_id)b::text[], %(transfer_id)b::text[], %(attempt)s::bigint[],
    %(sequence)s::bigint[], %(state_code)s::text[], %(changed_at)b::double precision[],
    %(created_at)b::double precision[], %(group_name)b::bytea[], %(worker)b::text[],
    %(record)b::bytea[]
) AS batch (
    owner, upload_id, transfer_id, attempt, sequence, state_code, changed_at, created_at,
    group_name, worker, record
)
"""

SAVE: Final = (
    _LEASED
    + ", saved AS ("
    + _INSERT
    + """
ON CONFLICT (owner, upload_id, transfer_id) DO UPDATE SET
    attempt = excluded.attempt, sequence = excluded.sequence, state_code = excluded.state_code,
    changed_at = excluded.changed_at, created_at = excluded.created_at,
    group_name = excluded.group_name, worker = excluded.worker, record = excluded.record,
    format = excluded.format, due_at = excluded.due_at
WHERE known.format <= 1 AND (
    excluded.attempt > known.attempt
    OR excluded.attempt = known.attempt
    AND excluded.sequence > known.sequence
    AND known.state_code NOT IN ('C', 'D', 'S')
)
RETURNING owner, upload_id, transfer_id
)
SELECT position FROM unnest(
    %(owner)b::bytea[], %(upload_id)b::text[], %(transfer_id)b::text[]
) WITH ORDINALITY AS batch (owner, upload_id, transfer_id, position)
LEFT JOIN saved USING (owner, upload_id, transfer_id) WHERE saved.owner IS NULL
"""
)
"""Returns the positions, from 1, of the records that were not saved: most often there are none."""

ANNOUNCE: Final = (
    _LEASED
    + _INSERT
    + """
WHERE {schema}.count_pending(owner) < %(limit)s
ON CONFLICT (owner, upload_id, transfer_id) DO NOTHING
RETURNING upload_id
"""
)
"""Saves one pending upload, unless its owner has too many. The function waits for a lock, which is
held until the end of the statement, and counts then: so statements at the same time are counted."""

DROP_OLD: Final = """
DELETE FROM {schema}.transfers AS known
USING unnest(%b::bytea[], %b::text[], %b::bigint[]) AS batch (owner, upload_id, attempt)
WHERE known.owner = batch.owner AND known.upload_id = batch.upload_id
    AND known.attempt < batch.attempt AND known.format <= 1
"""

LIMIT_OWNERS: Final = """
UPDATE {schema}.transfers AS known SET due_at = now()
FROM (
    SELECT row.owner, row.upload_id, row.transfer_id
    FROM (
        SELECT owner, upload_id, transfer_id, state_code, row_number() OVER (
            PARTITION BY owner, state_code IN ('N', 'P')
            ORDER BY changed_at DESC, upload_id DESC
        ) AS position
        FROM {schema}.transfers
        WHERE owner = ANY(%(owners)b::bytea[]) AND state_code IN ('N', 'P', 'C', 'D', 'S')
    ) AS ranked
    JOIN {schema}.transfers AS row USING (owner, upload_id, transfer_id)
    WHERE row.due_at > now() AND row.format <= 1 AND ranked.position > CASE
        WHEN ranked.state_code IN ('N', 'P') THEN %(waiting)s::bigint ELSE %(ended)s::bigint
    END
    FOR UPDATE OF row SKIP LOCKED
) AS excess
WHERE known.owner = excess.owner AND known.upload_id = excess.upload_id
    AND known.transfer_id = excess.transfer_id
"""
"""Makes those rows due that an owner has beyond the limits: the oldest of the ended, and of the
waiting ones. What is due is visited as if its time had come."""

RENEW: Final = """
WITH deleted AS (
    DELETE FROM {schema}.leases AS lease WHERE until < now() - interval '1 hour' AND NOT EXISTS (
        SELECT FROM {schema}.transfers AS known
        WHERE known.worker = lease.worker AND known.state_code = 'R'
    )
), newest AS (
    SELECT max(renewed_at) AS renewed_at, max(resumed_at) AS resumed_at FROM {schema}.leases
)
INSERT INTO {schema}.leases (worker, until, renewed_at, seconds, resumed_at)
SELECT
    %(worker)s, now() + make_interval(secs => %(seconds)s), now(), %(seconds)s,
    CASE
        WHEN renewed_at >= now() - make_interval(secs => %(seconds)s / 3) THEN resumed_at
        ELSE now()
    END
FROM newest
ON CONFLICT (worker) DO UPDATE SET
    until = excluded.until, renewed_at = excluded.renewed_at, seconds = excluded.seconds,
    resumed_at = excluded.resumed_at
"""

COLUMNS: Final = """
    known.owner, known.upload_id, known.transfer_id, known.attempt, known.sequence, known.format,
    known.record,
    extract(epoch FROM CASE WHEN lease.until IS NOT NULL THEN greatest(lease.until, (
        SELECT make_interval(secs => seconds) + CASE
            WHEN renewed_at < clock_timestamp() - make_interval(secs => seconds / 3)
            THEN clock_timestamp() ELSE max(resumed_at) OVER ()
        END
        FROM {schema}.leases ORDER BY renewed_at DESC NULLS LAST LIMIT 1
    )) END - clock_timestamp())::double precision
"""
"""The last column is how long the lease of the worker still lasts: in a pause, in which no worker
renews its lease, a full lease from now, and after it at least a full lease from its end. The rule
is that of ``upload_progress.backends.lease_table``."""

RUNNING: Final = """
SELECT {columns}, 0::double precision
FROM {schema}.transfers AS known
LEFT JOIN {schema}.leases AS lease USING (worker)
WHERE known.worker = %s AND known.state_code = 'R'
LIMIT %s
"""

LOAD: Final = """
SELECT {columns}, 0::double precision
FROM unnest(%b::bytea[], %b::text[]) AS batch (owner, upload_id)
JOIN {schema}.transfers AS known USING (owner, upload_id)
LEFT JOIN {schema}.leases AS lease USING (worker)
"""

LIST: Final = """
WITH page AS (
    SELECT first.upload_id, first.created_at
    FROM {schema}.transfers AS first
    CROSS JOIN LATERAL (
        SELECT
            bool_or(group_name = %(group)s::bytea) AS is_in_group,
            bool_or(state_code IN ('R', 'P')) AND NOT bool_or(state_code = 'D') AS is_open,
            min(changed_at) FILTER (WHERE state_code = 'S') AS stopped,
            min(changed_at) FILTER (WHERE state_code IN ('C', 'D')) AS completed,
            max(due_at) FILTER (WHERE state_code = 'S') AS stopped_due,
            min(due_at) FILTER (WHERE state_code IN ('C', 'D')) AS completed_due
        FROM {schema}.transfers AS known
        WHERE known.owner = first.owner AND known.upload_id = first.upload_id
            AND known.attempt = first.attempt
    ) AS decided
    WHERE first.owner = %(owner)s
        AND (first.created_at, first.upload_id)
            < (%(before)s::double precision, %(upload_id)s COLLATE "C")
        AND (
            coalesce(first.due_at >= now() + make_interval(secs => %(left)s::float8), true)
            OR first.state_code NOT IN ('C', 'D', 'S')
        )
        AND NOT EXISTS (
            SELECT FROM {schema}.transfers AS other
            WHERE other.owner = first.owner AND other.upload_id = first.upload_id AND (
                other.attempt > first.attempt
                OR other.attempt = first.attempt
                AND (other.created_at, other.transfer_id) < (first.created_at, first.transfer_id)
                AND (
                    coalesce(other.due_at >= now() + make_interval(secs => %(left)s::float8), true)
                    OR other.state_code NOT IN ('C', 'D', 'S')
                )
            )
        )
        AND (%(group)s::bytea IS NULL OR decided.is_in_group)
        AND coalesce(now() + make_interval(secs => %(left)s::float8) <= CASE
            WHEN stopped IS NOT NULL AND (is_open OR completed IS NULL OR stopped < completed)
            THEN stopped_due
            WHEN NOT is_open THEN completed_due
        END, true)
    ORDER BY first.created_at DESC, first.upload_id DESC LIMIT %(limit)s
)
SELECT {columns}, page.created_at
FROM page
JOIN {schema}.transfers AS known ON known.owner = %(owner)s AND known.upload_id = page.upload_id
LEFT JOIN {schema}.leases AS lease USING (worker)
ORDER BY page.created_at DESC, page.upload_id DESC
"""
"""Reads a page in the order of an index, from where the one before has ended. When the end of a
record was saved shows in its ``due_at``: with ``left``, a record that is not kept for so many more
seconds is skipped. Of the others of an upload, the one that was created first stands for it."""

LIST_OPEN: Final = """
SELECT DISTINCT owner, upload_id FROM {schema}.transfers
WHERE state_code IN ('N', 'P', 'R') AND (owner, upload_id) > (%s, %s COLLATE "C")
ORDER BY owner, upload_id LIMIT %s
"""
"""Reads the keys of uploads with an open record, in the order of an index."""

CLAIM: Final = """
UPDATE {schema}.transfers AS known SET due_at = now() + make_interval(secs => %s)
FROM (
    SELECT owner, upload_id, transfer_id FROM {schema}.transfers
    WHERE due_at <= now() AND format <= 1 AND {states}
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
) AS due
WHERE known.owner = due.owner AND known.upload_id = due.upload_id
    AND known.transfer_id = due.transfer_id
RETURNING known.owner, known.upload_id, known.transfer_id
"""
"""Claims rows that are due. They are due again later, in case the worker does not end them."""

DROP: Final = """
DELETE FROM {schema}.transfers AS known
USING unnest(%b::bytea[], %b::text[], %b::text[], %b::bigint[], %b::bigint[])
    AS batch (owner, upload_id, transfer_id, attempt, sequence)
WHERE known.owner = batch.owner AND known.upload_id = batch.upload_id
    AND known.transfer_id = batch.transfer_id
    AND known.attempt = batch.attempt AND known.sequence = batch.sequence
"""

CLAIM_LOST: Final = """
WITH renewals AS (
    SELECT renewed_at, seconds, max(resumed_at) OVER () AS resumed_at
    FROM {schema}.leases ORDER BY renewed_at DESC NULLS LAST LIMIT 1
)
UPDATE {schema}.transfers AS known SET due_at = now() + make_interval(secs => %s)
FROM (
    SELECT received.owner, received.upload_id, received.transfer_id
    FROM {schema}.leases AS lease
    JOIN renewals ON now() <= renewals.renewed_at + make_interval(secs => renewals.seconds / 3)
        AND now() >= renewals.resumed_at + make_interval(secs => renewals.seconds)
    JOIN {schema}.transfers AS received
        ON received.worker = lease.worker AND received.state_code = 'R'
    WHERE lease.until <= now() AND received.format <= 1
        AND (received.due_at IS NULL OR received.due_at <= now())
    LIMIT %s FOR UPDATE OF received SKIP LOCKED
) AS due
WHERE known.owner = due.owner AND known.upload_id = due.upload_id
    AND known.transfer_id = due.transfer_id
RETURNING known.owner, known.upload_id, known.transfer_id
"""
"""Claims rows of transfers whose worker has lost its lease, in the same way."""

RELEASE: Final = """
UPDATE {schema}.transfers AS known SET worker = NULL
FROM unnest(%b::bytea[], %b::text[], %b::text[], %b::bigint[], %b::bigint[])
    AS batch (owner, upload_id, transfer_id, attempt, sequence)
WHERE known.owner = batch.owner AND known.upload_id = batch.upload_id
    AND known.transfer_id = batch.transfer_id
    AND known.attempt = batch.attempt AND known.sequence = batch.sequence
"""
"""Forgets the worker of rows whose upload ended otherwise, so that they are not claimed again."""
