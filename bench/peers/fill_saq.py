"""Has SAQ queue as many jobs as its argument says."""

import asyncio
import sys

from bench.peers.fastapi_saq import queue


async def main(count):
    await queue.connect()
    for _ in range(count):
        await queue.enqueue("send_sms")
    await queue.disconnect()


asyncio.run(main(int(sys.argv[1])))
