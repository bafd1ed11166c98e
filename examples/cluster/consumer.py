"""Write the events of all uploads to a log file, without upload-progress.

Run:
    pip install aio-pika
    python examples/cluster/consumer.py amqp://guest:guest@localhost/ uploads.log
"""

import asyncio
import json
import sys
from pathlib import Path

import aio_pika


def log_line(event_type: str, owner: str, upload: dict[str, object]) -> str:
    percent = upload["percent"]
    progress = f"{upload['bytes_transferred']} bytes" if percent is None else f"{percent} %"
    identity = f"{owner} {upload['upload_id']} {upload['state']}"
    return f"{upload['updated_at']} {event_type} {identity} {progress}\n"


async def main(url: str, path: str) -> None:
    connection = await aio_pika.connect_robust(url)
    channel = await connection.channel()
    exchange = await channel.declare_exchange("upload-progress", aio_pika.ExchangeType.TOPIC)
    queue = await channel.declare_queue("upload-log", auto_delete=True)
    await queue.bind(exchange, "upload.#")
    with Path(path).open("a", encoding="utf-8", buffering=1) as log:  # noqa: ASYNC230  # opened once
        print(f"writing {path}", flush=True)
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    event_type = str(message.headers["ce-type"]).split(".")[1]
                    owner = str(message.headers["ce-owner"])
                    log.write(log_line(event_type, owner, json.loads(message.body)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
