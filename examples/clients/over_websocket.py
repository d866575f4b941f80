"""Follows one job, or many over one socket, by WebSocket: every event once, whatever is restarted.

export TOKEN=qm_…
python over_websocket.py 01a2031e-4b08-7054-b25f-b43bb27ba951
python over_websocket.py $ID $ANOTHER $THIRD
"""

import argparse
import asyncio
import json
import logging
import os
import random
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

from websockets import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.asyncio.client import ClientConnection, connect

FINAL = ("succeeded", "failed", "cancelled")
#: No, or no longer, a token; not from here; no such job: coming back changes nothing.
REFUSED = (4401, 4403, 4404)
#: Of a server or a proxy that may do better soon.
BUSY = (429, 500, 502, 503, 504)
#: What says that the connection, or the server, is gone for now.
LOST = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)
#: Ids in a frame: one may have 65,536 bytes.
MANY = 500

logger = logging.getLogger(__name__)


async def follow(url: str, token: str, job_id: str) -> AsyncIterator[dict[str, Any]]:
    """Each event of the job to its end; raises ConnectionClosed where it is refused."""
    cursor = tries = 0
    while True:
        try:
            async with opened(f"{url}/ws/jobs/{job_id}?after={cursor}", token) as socket:
                while True:
                    event = json.loads(await socket.recv())
                    cursor, tries = event.get("seq", cursor), 0
                    yield event
        except LOST as lost:
            if code(lost) == 1000:
                return
            await pause(lost, tries)
        tries += 1


async def follow_many(
    url: str, token: str, job_ids: Iterable[str]
) -> AsyncIterator[dict[str, Any]]:
    """Each event of up to 1,000 jobs until all have ended; an unknown one is an `error` event."""
    cursors = dict.fromkeys(job_ids, 0)
    open_, tries = set(cursors), 0
    while open_:
        try:
            async with opened(f"{url}/ws", token) as socket:
                await ask_for(socket, cursors)
                while True:
                    event = json.loads(await socket.recv())
                    tries = 0
                    if event["type"] == "pong" and not open_:
                        return
                    if event["type"] != "pong":
                        yield event
                    if job_id := event.get("job"):
                        note(event, job_id, cursors, open_)
                        if not open_:
                            # One that was retried goes on after an end: what came with it first.
                            await socket.send('{"ping": true}')
        except LOST as lost:
            await pause(lost, tries)
        tries += 1


def note(event: dict[str, Any], job_id: str, cursors: dict[str, int], open_: set[str]) -> None:
    if event["type"] == "error":
        cursors.pop(job_id, None)
    cursors |= {job_id: event["seq"]} if "seq" in event else {}
    if event["type"] == "error" or event.get("state") in FINAL:
        open_.discard(job_id)
    elif "seq" in event:
        open_.add(job_id)


async def ask_for(socket: ClientConnection, cursors: dict[str, int]) -> None:
    """Each from where it was left; of one that has ended meanwhile nothing comes."""
    ids = list(cursors)
    for start in range(0, len(ids), MANY):
        some = ids[start : start + MANY]
        frame = {"follow": some, "after": {job_id: cursors[job_id] for job_id in some}}
        await socket.send(json.dumps(frame))


def opened(address: str, token: str) -> connect:
    """It asks for signs of life by itself: a server that is gone without a word is found out."""
    return connect(address, additional_headers={"Authorization": f"Bearer {token}"})


async def pause(lost: Exception, tries: int) -> None:
    """Waits, longer each time, before coming back; raises what will never be otherwise."""
    if code(lost) in REFUSED:
        raise lost
    if isinstance(lost, InvalidStatus) and lost.response.status_code not in BUSY:
        raise lost  # no server of ours, or not its address
    logger.warning("Coming back: %r", lost)
    if code(lost) != 1012 or tries:  # a server that restarts has said so: come back at once
        await asyncio.sleep(random.uniform(0.5, 1) * min(2**tries, 15))


def code(lost: Exception) -> int:
    """With which the server closed, or 1006 where it said nothing."""
    return lost.rcvd.code if isinstance(lost, ConnectionClosed) and lost.rcvd else 1006


def token() -> str:
    return os.environ.get("TOKEN") or sys.exit("There is no token: export TOKEN=qm_…")


async def main(words: argparse.Namespace) -> None:
    url, secret = words.url.replace("http", "ws", 1), token()
    one = len(words.jobs) == 1
    events = follow(url, secret, words.jobs[0]) if one else follow_many(url, secret, words.jobs)
    async for event in events:
        print(json.dumps(event, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("jobs", nargs="+", metavar="ID")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    try:
        asyncio.run(main(parser.parse_args()))
    except ConnectionClosed as refused:
        sys.exit(f"{code(refused)} {refused.rcvd.reason if refused.rcvd else ''}")
    except InvalidStatus as refused:
        sys.exit(f"{refused.response.status_code} {refused.response.reason_phrase}")
