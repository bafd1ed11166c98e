"""Hear all uploads over PostgreSQL, with nothing of upload-progress: until one is completed.

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
            # What is larger than a notification comes without "data": read it where it is stored.
            state = event.get("data", {}).get("state")
            print(event["owner"], event["subject"], state)
            if state == "completed":
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
