"""The pages of schedules, as a browser without JavaScript has them."""

import html
import re
from typing import Any

import pytest
from quart import Quart

from quart_app.models import Role, Schedule
from tests.book import ADD
from tests.conftest import caller
from tests.web.test_auth import csrf, signed_in
from tests.web.test_pages import text
from tests.web.test_schedule_api import ALL, adopt_one, ask, make

KEPT = {"starts_at": "2030-01-01T00:00:00+00:00", "missed": "all", "timezone": "Asia/Tokyo"}
BERLIN = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture
async def browser(app: Quart, admin_token: str) -> Any:
    """Signed in as an admin."""
    return await signed_in(app, admin_token)


async def press(browser: Any, path: str, word: str, status: int = 302) -> Any:
    form = {"csrf_token": await csrf(browser, path)}
    answer = await browser.post(f"{path}/{word}", form=form)
    assert answer.status_code == status
    return answer


async def fill(browser: Any, **fields: str) -> Any:
    form = {"name": "mine", "task": ADD, "kwargs": '{"left": 1}', "interval": "60"} | fields
    form["csrf_token"] = await csrf(browser, "/schedules/new")
    return await browser.post("/schedules", form=form)


async def edit(browser: Any, path: str, **fields: str) -> Any:
    """Sends the form for a change as it came, but for these fields."""
    page = await (await browser.get(f"{path}/change")).get_data(as_text=True)
    found = re.findall(r'<input type="text" value="([^"]*)" id="(\w+)"', page)
    found += [(re.findall(r"<textarea[^>]*>\n([^<]*)</textarea>", page)[0], "kwargs")]
    form = {name: html.unescape(value) for value, name in found}
    form["csrf_token"] = await csrf(browser, f"{path}/change")
    return await browser.post(f"{path}/change", form=form | fields)


async def test_the_first_page_says_how_to_make_one(browser: Any) -> None:
    assert "Nothing is scheduled" in await text(await browser.get("/schedules"))
    assert 'href="/schedules"' in await text(await browser.get("/jobs"))


async def test_schedules_are_listed_with_their_next_time_in_their_zone(
    browser: Any, admin: Any
) -> None:
    paused = await make(admin, name="resting")
    await ask(admin, "post", f"{ALL}/{paused['id']}/pause")
    await make(admin, name="early", **BERLIN)
    page = await text(await browser.get("/schedules"))
    assert re.search(r"\d 02:30:00 <small>\+0[12]:00</small></time> <small>Europe/Berlin", page)
    for seen in ("30 2 * * *", "every 3600 s", "active", "paused", ">api<"):
        assert seen in page


async def test_one_shows_its_times_and_which_a_clock_change_moved(browser: Any, admin: Any) -> None:
    made = await make(admin, **BERLIN, starts_at="2094-03-27T00:00:00+01:00")
    page = await text(await browser.get(f"/schedules/{made['id']}"))
    times = re.findall(r"<li><time[^>]*>([^<]+) <small>([^<]+)</small></time>(.*)</li>", page)
    assert len(times) == 10
    assert times[1][:2] == ("2094-03-28 03:00:00", "+02:00")
    assert ["moved" in told for *_, told in times] == [False, True] + [False] * 8
    assert "It has made no job yet" in page


async def test_it_is_paused_and_resumed_by_buttons(browser: Any, admin: Any) -> None:
    path = f"/schedules/{(await make(admin))['id']}"
    await press(browser, path, "pause")
    page = await text(await browser.get(path))
    assert "It is paused" in page
    assert ">Pause<" not in page
    await press(browser, path, "resume")
    assert ">Pause<" in await text(await browser.get(path))


async def test_it_is_deleted_once_that_was_asked_about(browser: Any, admin: Any) -> None:
    path = f"/schedules/{(await make(admin))['id']}"
    assert f'<form action="{path}/delete">' in await text(await browser.get(path))
    asked = await text(await browser.get(f"{path}/delete"))
    assert "Delete mine?" in asked
    assert "every 3600 s" in asked
    assert f'method="post" action="{path}/delete"' in asked
    assert (await press(browser, path, "delete")).headers["Location"] == "/schedules"
    assert (await browser.get(path)).status_code == 404


async def test_a_run_leads_to_its_job_which_leads_back(browser: Any, admin: Any) -> None:
    made = await make(admin)
    path = f"/schedules/{made['id']}"
    job = (await press(browser, path, "run")).headers["Location"]
    assert f'<a href="{path}">mine</a>' in await text(await browser.get(job))
    assert f'href="{job}"' in await text(await browser.get(path))
    await admin.delete(f"{ALL}/{made['id']}")
    assert "one that was deleted" in await text(await browser.get(job))


async def test_one_of_settings_has_no_button_to_delete_it(app: Quart, browser: Any) -> None:
    path = (await adopt_one(app)).removeprefix("/api")
    assert ">Delete<" not in await text(await browser.get(path))
    await text(await browser.get(f"{path}/delete"), 409)
    await press(browser, path, "delete", 409)


async def test_each_role_is_shown_what_it_may_press(app: Quart, client: Any, admin: Any) -> None:
    path = f"/schedules/{(await make(admin))['id']}"
    shown = {
        role: re.findall(r"<button[^>]*>([^<]+)<", await text(await someone.get(path)))
        for role, someone in (("viewer", caller(app, Role.VIEWER)), ("operator", client))
    }
    assert shown == {"viewer": ["Sign out"], "operator": ["Sign out", "Run it now"]}
    assert "/schedules/new" not in await text(await client.get("/schedules"))


async def test_one_is_made_by_the_form(browser: Any, admin: Any) -> None:
    answer = await fill(browser, cron="@daily", interval="", timezone="Asia/Tokyo", missed="all")
    made = await ask(admin, "get", f"/api{answer.headers['Location']}")
    assert made.items() >= {
        "name": "mine", "task": ADD, "kwargs": {"left": 1}, "cron": "@daily", "interval": None,
        "timezone": "Asia/Tokyo", "missed": "all",
    }.items()  # fmt: skip


async def test_a_wrong_form_keeps_the_input_and_names_the_field(browser: Any, admin: Any) -> None:
    await make(admin, name="taken")
    wrong = [
        ("name", "taken", 409), ("name", "", 422), ("task", "no.such", 404), ("kwargs", "{", 422),
        ("kwargs", '{"left": "x"}', 422), ("kwargs", "[]", 422), ("cron", "@daily", 422),
        ("interval", "soon", 422), ("interval", "nan", 422), ("interval", "", 422),
        ("timezone", "<b>", 422), ("missed", "x", 422),
    ]  # fmt: skip
    told = {"cron": "interval", "interval": "interval"}
    for field, value, status in wrong:
        page = await text(await fill(browser, **{field: value}), status)
        named = "cron" if (field, value) == ("interval", "") else told.get(field, field)
        assert f'id="{named}-error"' in page, (field, value)
        assert "tests.sample_tasks.add" in page
    assert len((await ask(admin, "get", ALL))["items"]) == 1


async def test_a_wrong_argument_is_named_in_the_form(browser: Any) -> None:
    page = await text(await fill(browser, kwargs='{"left": 1, "up": 2}'), 422)
    assert "up: " in page[page.index('id="kwargs-error"') :]


async def test_what_the_form_has_no_field_for_is_told_above_it(
    app: Quart, browser: Any, admin: Any
) -> None:
    path = f"/schedules/{(await make(admin, queue='q'))['id']}"
    app.extensions["celery"].amqp.queues.create_missing = False
    page = await text(await edit(browser, path, interval="120"), 422)
    assert "queue: expected one of celery" in page


async def test_one_in_a_zone_that_this_machine_does_not_know_is_shown_with_what_to_do(
    app: Quart, browser: Any, admin: Any
) -> None:
    made = await make(admin, interval=None, cron="@daily")
    path = f"/schedules/{made['id']}"
    with app.extensions["db"].session() as session:
        session.get_one(Schedule, made["id"]).timezone = "Not/There"
    assert made["name"] in await text(await browser.get("/schedules"))
    assert "update its tzdata" in html.unescape(await text(await browser.get(path)))
    answer = await admin.get(f"{ALL}/{made['id']}/next")
    assert (answer.status_code, "Not/There" in (await answer.get_json())["detail"]) == (409, True)
    await press(browser, path, "pause")
    await press(browser, path, "resume", 409)
    await edit(browser, path, timezone="UTC")
    await press(browser, path, "resume")


async def test_one_is_changed_by_the_form_which_shows_what_it_is(browser: Any, admin: Any) -> None:
    made = await make(admin, name='a "b" & c', interval=0.1, queue="q", **KEPT)
    path = f"/schedules/{made['id']}"
    answer = await edit(browser, path)
    assert answer.headers["Location"] == path
    assert await ask(admin, "get", f"/api{path}") == made
    await edit(browser, path, name="new", interval="", cron="@daily", kwargs='{"right": 2}')
    changed = await ask(admin, "get", f"/api{path}")
    expected = {"name": "new", "interval": None, "cron": "@daily", "kwargs": {"right": 2}}
    assert changed == made | expected | {"next_at": changed["next_at"]}


async def test_a_wrong_change_keeps_the_input_and_names_the_field(browser: Any, admin: Any) -> None:
    await make(admin, name="taken")
    made = await make(admin)
    path = f"/schedules/{made['id']}"
    wrong = [
        ("name", "taken", 409), ("name", "", 422), ("task", "no.such", 404), ("task", "", 422),
        ("kwargs", '{"right": "x"}', 422), ("interval", "", 422), ("cron", "@daily", 422),
    ]  # fmt: skip
    told = {"cron": "interval", "interval": "cron"}
    for field, value, status in wrong:
        page = await text(await edit(browser, path, **{field: value}), status)
        assert f'id="{told.get(field, field)}-error"' in page, (field, value)
        assert f'action="{path}/change"' in page
    assert await ask(admin, "get", f"/api{path}") == made


async def test_one_of_settings_says_where_it_is_changed(app: Quart, browser: Any) -> None:
    path = (await adopt_one(app)).removeprefix("/api")
    page = await text(await browser.get(path))
    assert ">Change<" not in page
    assert "it is changed and deleted there" in page
    told = await text(await browser.get(f"{path}/change"), 409)
    assert "comes from CELERY_BEAT_SCHEDULE: change it there" in told


async def test_only_admins_change_by_the_form(client: Any, admin: Any) -> None:
    path = f"/schedules/{(await make(admin))['id']}"
    assert ">Change<" not in await text(await client.get(path))
    for word in ("change", "delete"):
        assert (await client.get(f"{path}/{word}")).status_code == 403


async def test_no_page_of_schedules_has_a_script_or_a_style_within(
    browser: Any, admin: Any
) -> None:
    path = f"/schedules/{(await make(admin, name='<script>alert(1)</script>'))['id']}"
    for url in ("/schedules", path, f"{path}/change", f"{path}/delete", "/schedules/new"):
        page = await (await browser.get(url)).get_data(as_text=True)
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page), url
