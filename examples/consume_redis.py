"""Receive the events of all uploads from Redis, without upload-progress, until one completes.

Run:
    pip install redis
    python examples/consume_redis.py redis://localhost
"""

import asyncio
import json
import sys

from redis.asyncio import Redis


async def main(url: str) -> None:
    async with Redis.from_url(url) as client, client.pubsub() as channels:
        await channels.psubscribe("upload-progress:events:*")
        async for message in channels.listen():
            if message["type"] == "pmessage":
                event = json.loads(message["data"])
                print(event["owner"], event["subject"], event["data"]["state"])
                if event["data"]["state"] == "completed":
                    return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
