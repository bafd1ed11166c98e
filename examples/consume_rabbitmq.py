"""Receive the events of all uploads from RabbitMQ, without upload-progress, until one completes.

Run:
    pip install aio-pika
    python examples/consume_rabbitmq.py amqp://guest:guest@localhost/
"""

import asyncio
import json
import sys

import aio_pika


async def main(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("upload-progress", aio_pika.ExchangeType.TOPIC)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "upload.*.*")
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    owner, data = message.headers["ce-owner"], json.loads(message.body)
                    print(owner, data["upload_id"], data["state"])
                    if data["state"] == "completed":
                        return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
