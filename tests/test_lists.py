"""Lists of jobs: every filter and any of them together, paged to the end whatever happens."""

import itertools
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from quart_app import jobs, lists
from quart_app.lists import Filters, Place
from quart_app.models import Job, JobState
from tests.book import ADD, Book

REPEAT, ANYTHING = "tests.sample_tasks.repeat", "tests.sample_tasks.anything"


def find(book: Book, **filters: Any) -> list[str]:
    return [job.id for job in book(lists.page, Filters(**filters)).jobs]


def pages(book: Book, limit: int = 2, **filters: Any) -> list[list[str]]:
    """All of them, each by the cursor of the one before."""
    found: list[list[str]] = []
    rest = None
    while rest or not found:
        page = book(lists.page, Filters(**filters), limit=limit, after=rest)
        found.append([job.id for job in page.jobs])
        rest = page.rest and Place.read(str(page.rest))
    return found


def adopted(book: Book, job_id: str) -> Job:
    assert book(jobs.adopt, job_id, jobs.NewJob(task=ADD, args=[1]))
    return book.job(job_id)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches in short strides, one a page."""
    monkeypatch.setattr(lists, "STRIDE", 3)
    monkeypatch.setattr(lists, "PATIENCE", 0)


def test_each_filter_finds_what_it_names(book: Book) -> None:
    one = book.submit(queue="a")
    two = book.submit(REPEAT, args=['Grüße, 世界 😀 "quoted" 100%'])
    three = book.submit(delay=60)
    book.set(three, error="Größer als_alles")
    found = partial(find, book)
    assert found(queue="a") == [one.id]
    assert found(task=REPEAT) == [two.id]
    assert found(task=REPEAT.upper()) == []
    assert found(state=JobState.SCHEDULED) == [three.id]
    for text in ("GRÜSSE".replace("SS", "ß"), "世界", "😀", '"quoted"', "100%"):
        assert found(text=text) == [two.id], text
    assert found(text="GRÖSSER".replace("SS", "ß")) == found(text="als_a") == [three.id]
    assert found(text="alsxa") == found(text="😁") == found(text="0%0") == []


def test_times_find_also_at_the_ends_of_the_calendar(book: Book) -> None:
    one, two = book.submit(), book.submit()
    far = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))
    late = datetime.max.replace(tzinfo=timezone(-timedelta(hours=9)))
    assert find(book, since=two.accepted_at) == [two.id]
    assert find(book, until=one.accepted_at) == [one.id]
    assert len(find(book, since=far, until=late)) == 2


def test_pages_miss_and_repeat_nothing_while_jobs_arrive(book: Book) -> None:
    expected = [book.submit().id for _ in range(7)][::-1]
    page = book(lists.page, Filters(), limit=2)
    seen = [job.id for job in page.jobs]
    while page.rest:
        book.submit()
        page = book(lists.page, Filters(), limit=2, after=page.rest)
        seen += [job.id for job in page.jobs]
    assert seen == expected


def test_jobs_of_other_clients_stand_where_they_came_in_whatever_their_ids(book: Book) -> None:
    found = [
        book.submit().id,
        adopted(book, "ffffffff-ffff-4fff-8fff-ffffffffffff").id,
        book.submit().id,
        adopted(book, "00000000-0000-4000-8000-000000000000").id,
        book.submit().id,
    ]
    assert find(book) == found[::-1]
    assert list(itertools.chain(*pages(book))) == found[::-1]


def test_jobs_that_came_in_at_the_same_instant_are_each_listed_once(book: Book) -> None:
    made = book(jobs.submit_many, [jobs.NewJob(task=ADD, args=[n]) for n in range(7)])
    assert len({job.accepted_at for job in made}) == 1
    found = pages(book, limit=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert list(itertools.chain(*found)) == [job.id for job in reversed(made)]


GIVEN: dict[str, list[Any]] = {
    "state": [None, *JobState], "task": [None, ADD, REPEAT], "queue": [None, "a", "b"],
    "text": [None, "x"],
}  # fmt: skip
COMBINED = [dict(zip(GIVEN, values, strict=True)) for values in itertools.product(*GIVEN.values())]


def mixed(book: Book) -> list[Job]:
    """Jobs of which all that can be told apart is."""
    made = [
        book.submit(task, args=[argument], queue=queue)
        for task, argument in ((ADD, 1), (REPEAT, "x"), (REPEAT, "y"))
        for queue in ("a", "b", "a")
        for _ in range(2)
    ]
    for job, state in zip(made, itertools.cycle([*JobState][::2]), strict=False):
        book.set(job, state=state)
    return [book.job(job.id) for job in made]


def fits(job: Job, filters: dict[str, Any]) -> bool:
    facts = {"state": job.state, "task": job.task, "queue": job.queue, "text": job.args[0]}
    return all(value in (None, facts[name]) for name, value in filters.items())


@pytest.mark.usefixtures("hurried")
def test_filters_together_find_what_fits_all_of_them_in_pages_that_end(book: Book) -> None:
    made = mixed(book)[::-1]
    for filters in COMBINED:
        found = list(itertools.chain(*pages(book, **filters)))
        assert found == [job.id for job in made if fits(job, filters)], filters


@pytest.mark.usefixtures("hurried")
def test_a_search_that_takes_long_goes_on_with_the_next_page(book: Book) -> None:
    sought = book.submit(REPEAT, args=["needle"])
    for _ in range(7):
        book.submit()
    assert pages(book, text="needle") == [[], [], [sought.id]]


def test_few_jobs_are_always_searched_whole(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PATIENCE", 0)
    sought = book.submit(REPEAT, args=["needle"])
    book(jobs.submit_many, [jobs.NewJob(task=ADD, args=[1])] * (lists.STRIDE - 2))
    assert pages(book, text="needle") == [[sought.id]]


def test_a_page_of_big_jobs_ends_early(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_ON_A_PAGE", 1_000)
    big, *small = [book.submit(ANYTHING, args=["x" * size]) for size in (5_000, 400, 400, 400)]
    third, second, first = [job.id for job in small]
    assert pages(book, limit=50) == [[first, second], [third], [big.id]]
