"""Receive the events of all uploads from Kafka, without upload-progress, until one completes.

Run:
    pip install aiokafka
    python examples/consume_kafka.py localhost:9092
"""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer


async def main(servers: str) -> None:
    async with AIOKafkaConsumer("upload-progress-events", bootstrap_servers=servers) as consumer:
        async for message in consumer:
            owner, data = dict(message.headers)["ce_owner"].decode(), json.loads(message.value)
            print(owner, data["upload_id"], data["state"])
            if data["state"] == "completed":
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
