"""Submits jobs over HTTP, and follows one to its end by server-sent events.

export TOKEN=qm_…
python over_http.py tasks.background.async_send_sms --kwargs '{"to": "+12015550123", "text": "Hi"}'
python over_http.py tasks.scheduler.send_sms --times 100     a hundred in one request
"""

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

AGAIN = (429, 502, 503, 504)

logger = logging.getLogger(__name__)


def connect(url: str, token: str) -> httpx.AsyncClient:
    """To be kept for many calls; a stream says at least every 15 seconds that it is alive."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=httpx.Timeout(10, read=40))


async def submit(http: httpx.AsyncClient, job: dict[str, Any], key: str | None = None) -> str:
    """The id of the job, sent until it is answered: by its key it is one job all the same."""
    headers = {"Idempotency-Key": key or str(uuid.uuid4())}
    tries = 0
    while True:
        try:
            answer = await http.post("/api/jobs", json=job, headers=headers)
            return str(answer.raise_for_status().json()["id"])
        except httpx.HTTPError as error:
            await pause(error, tries)
            tries += 1


async def submit_all(http: httpx.AsyncClient, jobs: Sequence[dict[str, Any]]) -> list[str]:
    """The ids of up to 10,000 jobs, all of them accepted or none.

    Not sent again by itself: a batch has no key. One that may be repeated has a `unique_key` in
    each of its jobs.
    """
    answer = await http.post("/api/jobs/batch", json={"jobs": list(jobs)}, timeout=60)
    return list(answer.raise_for_status().json()["ids"])


async def follow(
    http: httpx.AsyncClient, job_id: str, after: int = 0
) -> AsyncIterator[dict[str, Any]]:
    """Each event of the job after a seq, to its end, whatever is cut off or restarted meanwhile."""
    tries = 0
    while True:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        error: httpx.HTTPError | None = None
        try:
            async with http.stream("GET", f"/api/jobs/{job_id}/events", headers=headers) as answer:
                if answer.is_error:
                    await answer.aread()  # so that the error can tell what it said
                answer.raise_for_status()
                ended = True
                async for line in answer.aiter_lines():
                    name, _, value = line.partition(": ")
                    if name == "data":
                        event = json.loads(value)
                        after, tries = event.get("seq", after), 0
                        yield event
                    elif name == "retry":  # said by a stream that ends before the job does
                        ended = False
                if ended:
                    return
        except httpx.HTTPError as lost:
            error = lost
        await pause(error, tries)
        tries += 1


async def pause(error: httpx.HTTPError | None, tries: int) -> None:
    """Waits, longer each time; raises the error if it would be the same the next time."""
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in AGAIN:
        raise error
    logger.warning("Trying again: %r", error)
    await asyncio.sleep(random.uniform(0.5, 1) * min(2**tries, 15))


async def main(words: argparse.Namespace) -> int:
    job = {"task": words.task, "kwargs": words.kwargs}
    async with connect(words.url, token()) as http:
        if words.times:
            print(*await submit_all(http, [job] * words.times), sep="\n")
            return 0
        async for event in follow(http, await submit(http, job)):
            print(json.dumps(event, ensure_ascii=False), flush=True)
    return 0 if event["state"] == "succeeded" else 1


def token() -> str:
    return os.environ.get("TOKEN") or sys.exit("There is no token: export TOKEN=qm_…")


def told(error: httpx.HTTPStatusError) -> str:
    """What the server says of it: problem+json has a sentence."""
    try:
        return str(error.response.json()["detail"])
    except (ValueError, KeyError):
        return str(error)


if __name__ == "__main__":
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("task", help="its name, as GET /api/tasks has it")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="its arguments, as JSON")
    parser.add_argument("--times", type=int, default=0, help="submit so many, and show their ids")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    try:
        sys.exit(asyncio.run(main(parser.parse_args())))
    except httpx.HTTPStatusError as refused:
        sys.exit(told(refused))
    except httpx.TransportError as lost:
        sys.exit(f"{type(lost).__name__}: {lost}")
