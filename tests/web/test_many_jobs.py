"""Many jobs over one socket, and the feed of all jobs."""

import asyncio
import json
import uuid
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from quart_app import jobs, tokens
from quart_app.web.commands import parse
from tests.web.following import (
    COUNT,
    Frames,
    Hand,
    Served,
    connect_many,
    drain,
    numbered,
    on_one_database,
    receive,
    told,
)


async def ask(socket: ClientConnection, **command: Any) -> None:
    await socket.send(json.dumps(command))


async def until_ended(socket: ClientConnection, count: int) -> dict[str, Frames]:
    """The frames by job, until so many jobs have ended."""
    frames: dict[str, Frames] = {}
    while sum(each[-1].get("state") == "succeeded" for each in frames.values()) < count:
        (frame,) = await receive(socket, 1)
        frames.setdefault(frame["job"], []).append(frame)
    return frames


async def quiet(socket: ClientConnection) -> None:
    """The socket still answers, and has nothing else to say."""
    await ask(socket, ping=True)
    assert await receive(socket, 1) == [{"type": "pong"}]


async def test_many_jobs_are_replayed_and_followed_over_one_socket(
    served: Served, secret: str, hand: Hand
) -> None:
    old, new = await hand.whole_job(), await hand.start()
    async with connect_many(served, secret) as socket:
        await ask(socket, follow=[old, new], after={old: 3})
        await hand.say(new, "one")
        await hand.succeed(new)
        frames = await until_ended(socket, 2)
        assert told(frames[old]) == ["line 2", "succeeded"]
        assert told(frames[new]) == ["queued", "running", "one", "succeeded"]
        await quiet(socket)


async def test_a_job_that_has_ended_can_be_followed_again(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.whole_job()
    async with connect_many(served, secret) as socket:
        for after in (0, 4):
            await ask(socket, follow=[job_id], after={job_id: after})
            assert len((await until_ended(socket, 1))[job_id]) == 5 - after
        await ask(socket, follow=[job_id], after={job_id: 5})
        await quiet(socket)


async def test_following_twice_goes_on_as_it_was(served: Served, secret: str, hand: Hand) -> None:
    job_id = await hand.start()
    async with connect_many(served, secret) as socket:
        await ask(socket, follow=[job_id, job_id], after={job_id: 1})
        assert told(await receive(socket, 1)) == ["running"]
        await ask(socket, follow=[job_id])
        await hand.succeed(job_id)
        assert told((await until_ended(socket, 1))[job_id]) == ["succeeded"]


async def test_what_is_unfollowed_is_heard_no_more(served: Served, secret: str, hand: Hand) -> None:
    one, other = await hand.start(), await hand.start()
    async with connect_many(served, secret) as socket:
        await ask(socket, follow=[one, other], after={one: 2, other: 2})
        await ask(socket, unfollow=[one, "nothing"])
        await quiet(socket)
        for job_id in (one, other):
            await hand.succeed(job_id)
        assert list(await until_ended(socket, 1)) == [other]
        await ask(socket, unfollow=[one], follow=[one])
        assert told((await until_ended(socket, 1))[one]) == ["queued", "running", "succeeded"]


async def test_a_hundred_jobs_come_whole_and_in_order(
    served: Served, secret: str, hand: Hand
) -> None:
    jobs = [await hand.start() for _ in range(50)] + [await hand.whole_job() for _ in range(50)]
    async with connect_many(served, secret) as socket:
        await ask(socket, follow=jobs)
        for job_id in jobs[:50]:
            await hand.say(job_id, *numbered(2), progress=1)
            await hand.succeed(job_id)
        frames = await until_ended(socket, 100)
    for each in frames.values():
        assert told(each) == ["queued", "running", "line 1", "line 2", "succeeded"]


async def test_what_a_job_said_before_it_was_unfollowed_does_not_come_again_by_the_feed(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.start()
    async with connect_many(served, secret) as socket:
        await ask(socket, follow=[job_id])
        frames = await receive(socket, 2)
        assert told(frames) == ["queued", "running"]
        await ask(socket, unfollow=[job_id], follow="all")
        await quiet(socket)
        hand.announce(frames[-1])
        await hand.succeed(job_id)
        assert told((await until_ended(socket, 1))[job_id]) == ["succeeded"]


async def test_the_feed_tells_of_a_job_that_was_not_there_when_it_was_followed(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = str(uuid.uuid4())
    async with connect_many(served, secret) as socket:
        await ask(socket, follow=[job_id], after={job_id: 2**31 - 1})
        assert (await receive(socket, 1))[0]["type"] == "error"
        await ask(socket, follow="all")
        await quiet(socket)
        await hand.do(jobs.adopt, job_id, jobs.NewJob(task=COUNT, kwargs={"steps": 1}))
        assert told(await receive(socket, 1)) == ["queued"]


async def test_an_unknown_job_is_named_and_the_socket_stays(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id, unknown = await hand.whole_job(), "00000000-0000-7000-8000-000000000000"
    async with connect_many(served, secret) as socket:
        for odd, shown in ((unknown, unknown), ("é\0", "\\xe9\\x00"), ("\ud800", "\\ud800")):
            await ask(socket, follow=[odd])
            told_so = {"type": "error", "detail": f"There is no job {shown}.", "job": shown}
            assert await receive(socket, 1) == [told_so]
        await ask(socket, follow=[unknown, job_id], after={job_id: 4})
        assert {frame["type"] for frame in await receive(socket, 2)} == {"error", "state"}


SENSELESS: dict[str | bytes, str] = {
    "": "frame: expected JSON",
    "{": "frame: expected JSON",
    "[" * 60_000: "frame: expected JSON",
    b"": "frame: expected JSON",
    b"\xff{}": "frame: expected text, not bytes",
    "[]": "frame: expected a JSON object",
    "null": "frame: expected a JSON object",
    "{}": "frame: expected one of follow, after, unfollow, ping",
    '{"\\ud800": []}': "\\ud800: unknown; expected one of follow, after, unfollow, ping",
    '{"follow": "x"}': 'follow: expected a list of job ids, or "all"',
    '{"follow": [1]}': 'follow: expected a list of job ids, or "all"',
    '{"unfollow": null}': 'unfollow: expected a list of job ids, or "all"',
    '{"after": {"x": 1}}': "after: goes with follow",
    '{"after": {}}': "after: goes with follow",
    '{"follow": [], "after": [1]}': "after: expected an object: the last seq by job id",
}
SEQS = ["-1", "2147483648", "1" * 5_000, "true", "null", '"1"', "1.0", "1e3"]


@on_one_database
async def test_a_frame_that_makes_no_sense_is_answered_and_the_socket_stays(
    served: Served, secret: str, hand: Hand
) -> None:
    async with connect_many(served, secret) as socket:
        for frame, detail in SENSELESS.items():
            await socket.send(frame)
            assert await receive(socket, 1) == [{"type": "error", "detail": detail}]
        for seq in SEQS:
            await socket.send(f'{{"follow": ["x"], "after": {{"x": {seq}}}}}')
            (answer,) = await receive(socket, 1)
            assert answer["detail"].startswith(("after.x: expected a whole", "frame: expected"))
        await quiet(socket)


def test_a_cursor_for_a_job_that_is_not_asked_for_does_no_harm() -> None:
    command = parse('{"follow": ["a", "b"], "after": {"a": 0, "b": 2147483647, "c": 5}}')
    assert command.cursors == {"a": 0, "b": 2147483647}


async def test_the_feed_has_every_change_of_state_from_now_on(
    served: Served, secret: str, hand: Hand
) -> None:
    before = await hand.start()
    async with connect_many(served, secret) as socket:
        await ask(socket, follow="all", ping=True)
        while await receive(socket, 1) != [{"type": "pong"}]:
            pass  # the start may be announced only now
        after = await hand.whole_job()
        await hand.succeed(before)
        frames = await until_ended(socket, 2)
        assert told(frames[after]) == ["queued", "running", "succeeded"]
        assert told(frames[before])[-1:] == ["succeeded"]
        assert "result" not in frames[after][-1]
        await ask(socket, unfollow="all")
        await quiet(socket)
        await hand.whole_job()
        await quiet(socket)


async def test_a_job_that_is_followed_does_not_come_by_the_feed_as_well(
    served: Served, secret: str, hand: Hand
) -> None:
    job_id = await hand.start()
    async with connect_many(served, secret) as socket:
        # First, since its start may be announced only now: to the feed that would be news.
        await ask(socket, follow=[job_id], after={job_id: 2})
        await ask(socket, follow="all")
        await quiet(socket)
        await hand.say(job_id, "one")
        await hand.succeed(job_id)
        frames = (await until_ended(socket, 1))[job_id]
        assert told(frames) == ["one", "succeeded"]
        await quiet(socket)
        hand.announce(frames[-1])  # later than the rows have told it
        other = await hand.whole_job()
        assert list(await until_ended(socket, 1)) == [other]
        await quiet(socket)


async def test_a_revoked_token_ends_all_its_sockets(
    served: Served, secret: str, hand: Hand
) -> None:
    async with connect_many(served, secret) as one, connect_many(served, secret) as other:
        await quiet(one)
        await quiet(other)
        await hand.do(tokens.revoke, "operator")
        async with asyncio.timeout(20):
            assert [await drain(one), await drain(other)] == [([], 4401)] * 2


@on_one_database
@pytest.mark.parametrize(
    ("headers", "code"), [({"Authorization": "Bearer x"}, 4401), ({"Origin": "null"}, 4403)]
)
async def test_who_may_not_follow_many_jobs_is_told_by_the_close_code(
    served: Served, secret: str, headers: dict[str, str], code: int
) -> None:
    async with connect_many(served, secret, headers=headers) as socket:
        assert await drain(socket) == ([], code)
