"""Receive the events of all uploads from PostgreSQL, without upload-progress, until one completes.

Run:
    pip install 'psycopg[binary]'
    python examples/consume_postgres.py postgresql://localhost/postgres
"""

import asyncio
import json
import sys

from psycopg import AsyncConnection


async def main(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute('LISTEN "upload_progress:events:all"')
        async for notification in connection.notifies():
            event = json.loads(notification.payload)
            # Without "data" if it is larger than a notification: read the snapshot by HTTP instead.
            state = event.get("data", {}).get("state")
            print(event["owner"], event["subject"], state)
            if state == "completed":
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
