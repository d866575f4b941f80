"""The pages, as a browser without JavaScript has them."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from quart_app.web import pages
from tests.real import eventually
from tests.web.following import Hand
from tests.web.test_api import submit
from tests.web.test_auth import csrf, sign_in


@pytest.fixture
async def browser(app: Quart, token: str) -> Any:
    client = app.test_client()
    await sign_in(client, token)
    return client


async def text(answer: Any, status: int = 200) -> str:
    page = unescape(await answer.get_data(as_text=True))
    assert answer.status_code == status, page
    return page


async def test_the_first_page_is_the_list_of_jobs(browser: Any) -> None:
    assert (await browser.get("/")).headers["Location"] == "/jobs"
    assert "Nothing in the book yet" in await text(await browser.get("/jobs"))


async def test_jobs_are_listed_and_filtered_by_state(browser: Any, client: Any) -> None:
    waiting, queued = await submit(client, delay=60), await submit(client, queue="nobody")
    everything = await text(await browser.get("/jobs"))
    scheduled = await text(await browser.get("/jobs?state=scheduled"))
    assert waiting["id"] in everything
    assert queued["id"] in everything
    assert waiting["id"] in scheduled
    assert queued["id"] not in scheduled


async def test_every_filter_is_shown_can_be_dropped_and_is_kept_beside_a_state(
    browser: Any, client: Any
) -> None:
    await submit(client, delay=60)
    page = await text(await browser.get("/jobs?queue=other&state=failed&q=left"))
    links = re.findall('href="(/jobs[^"]*)"[^>]*>([^<]+)<', page)
    assert ("/jobs?state=failed&q=left", "queue other ×") in links
    assert ("/jobs?queue=other&q=left", "state failed ×") in links
    assert ("/jobs?state=failed&queue=other", "q left ×") in links
    assert ("/jobs?queue=other&q=left", "all") in links
    assert ("/jobs?state=queued&queue=other&q=left", "queued") in links
    assert "No job matches" in page


async def test_what_is_searched_for_is_kept_beside_the_other_filters(browser: Any) -> None:
    page = await text(await browser.get("/jobs?state=failed&q=a%22b"))
    assert '<input type="hidden" name="state" value="failed">' in page
    assert 'name="q" value="a"b"' in page
    assert "Drop q" not in await text(await browser.get("/jobs?q="))


async def test_the_next_page_keeps_the_filters(browser: Any, client: Any) -> None:
    ids = [(await submit(client, delay=60, queue="slow"))["id"] for _ in range(3)]
    first = await text(await browser.get("/jobs?queue=slow&limit=2&q=left"))
    link = re.search('href="([^"]+)" rel="next"', first)
    assert link
    second = await text(await browser.get(link[1]))
    assert "queue=slow" in link[1]
    assert ids[0] in second
    assert ids[1] not in second
    assert 'rel="next"' not in second


async def test_a_senseless_filter_is_a_page_that_names_it(browser: Any) -> None:
    answer = await browser.get("/jobs?state=nonsense", headers={"Accept": "text/html"})
    assert "state" in await text(answer, 422)


async def test_a_job_shows_what_happened_and_its_result(browser: Any, hand: Hand) -> None:
    page = await text(await browser.get(f"/jobs/{await hand.whole_job()}"))
    for seen in ("succeeded", "line 1", "line 2", '"done"', "1 of 1"):
        assert seen in page


async def test_a_job_with_many_lines_shows_the_newest_and_says_where_all_are(
    browser: Any, hand: Hand
) -> None:
    short, long = await hand.whole_job(197), await hand.whole_job(198)
    everything = await text(await browser.get(f"/jobs/{short}"))
    newest = await text(await browser.get(f"/jobs/{long}"))
    assert re.search(r'id="older" class="hint" hidden', everything)
    assert re.search(r'id="older" class="hint" >Older lines are not shown', newest)
    assert [page.count("<li class") for page in (everything, newest)] == [200, 200]
    assert f'href="/api/jobs/{long}/events"' in newest


async def test_what_changes_of_a_job_s_page_is_had_alone(browser: Any, hand: Hand) -> None:
    parts = await text(await browser.get(f"/jobs/{await hand.whole_job()}/parts"))
    assert re.findall(r'^<\w+ .*?id="(\w+)"', parts, re.MULTILINE) == ["why", "actions", "facts"]
    assert "line 1" not in parts
    assert (await browser.get("/jobs/unknown/parts")).status_code == 404


async def test_a_job_says_why_it_waits(browser: Any, client: Any) -> None:
    job = await submit(client, queue="nobody")
    page = await text(await browser.get(f"/jobs/{job['id']}"))
    assert "No worker that is online consumes queue 'nobody'." in page


async def test_what_people_wrote_is_shown_as_they_wrote_it(browser: Any, client: Any) -> None:
    wanted = "<script>alert(1)</script> 你好 🎉"
    job = await submit(client, "tests.sample_tasks.repeat", kwargs={"text": wanted}, delay=60)
    raw = await (await browser.get(f"/jobs/{job['id']}")).get_data(as_text=True)
    assert "<script>alert" not in raw
    assert wanted in unescape(raw)


async def test_a_job_is_cancelled_and_run_again_by_buttons(browser: Any, client: Any) -> None:
    path = f"/jobs/{(await submit(client, delay=60))['id']}"
    form = {"csrf_token": await csrf(browser, path)}
    await browser.post(f"{path}/cancel", form=form)
    assert "Run it again" in await text(await browser.get(path))
    await browser.post(f"{path}/retry", form=form)
    assert "Cancel this job" in await text(await browser.get(path))


async def test_a_running_job_is_asked_to_stop_by_one_press_of_the_button(
    browser: Any, app: Quart
) -> None:
    path = f"/jobs/{await Hand(app).start()}"
    form = {"csrf_token": await csrf(browser, path)}
    assert "Cancel this job" in await text(await browser.get(path))
    await browser.post(f"{path}/cancel", form=form)
    assert "Cancel this job" not in await text(await browser.get(path))


async def test_a_button_that_comes_too_late_says_so(browser: Any, client: Any) -> None:
    path = f"/jobs/{(await submit(client, delay=60))['id']}"
    form = {"csrf_token": await csrf(browser, path)}
    await browser.post(f"{path}/cancel", form=form)
    answer = await browser.post(f"{path}/cancel", form=form)
    assert "ended already: cancelled" in await text(await browser.get(answer.headers["Location"]))


async def test_queues_are_shown_with_what_waits_in_them(browser: Any, client: Any) -> None:
    job = await submit(client, queue="nobody")
    page = await text(await browser.get("/queues"))
    assert re.search(r'href="/jobs\?queue=nobody"', page)
    assert f"…{job['id'][-8:]}" in page
    assert re.search(r'data-label="Waiting">1<', page)


async def test_workers_are_shown_with_what_they_run(
    browser: Any, client: Any, worker: Path
) -> None:
    job = await submit(client, "tests.sample_tasks.count", kwargs={"steps": 100, "pause": 0.1})

    async def shown() -> bool:
        return job["id"] in await text(await browser.get("/workers"))

    await eventually(shown)
    await client.post(f"/api/jobs/{job['id']}/cancel")


async def test_with_no_worker_online_the_page_says_how_to_start_one(browser: Any) -> None:
    assert "No worker is online" in await text(await browser.get("/workers"))


async def test_a_stranger_gets_the_form_in_place_of_the_api_s_page(app: Quart) -> None:
    assert "Sign in" in await text(await app.test_client().get("/docs"), 401)


async def test_only_the_api_s_page_may_have_images_within_its_style(browser: Any) -> None:
    policy = "Content-Security-Policy"
    docs, other = await browser.get("/docs"), await browser.get("/queues")
    assert "img-src 'self' data:;" in docs.headers[policy]
    assert "data:" not in other.headers[policy]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_how_long_is_said_in_a_fitting_unit(seconds: float, said: str) -> None:
    assert pages.span(seconds) == said


async def test_no_page_has_a_script_or_a_style_within(browser: Any, hand: Hand) -> None:
    job = f"/jobs/{await hand.submit()}"
    for path in ("/jobs", job, "/queues", "/workers", "/docs", "/sms", "/sign-in", "/nowhere"):
        answer = await browser.get(path, headers={"Accept": "text/html"})
        page = await answer.get_data(as_text=True)
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page), path
