"""Sight: who was out of sight has time to speak before it is taken for lost."""

from datetime import UTC, datetime, timedelta

from quart_app.sight import Sight

LEASE = 15.0
AT = datetime(2030, 1, 1, tzinfo=UTC)


def look(sight: Sight, second: float, jump: float = 0) -> bool:
    """At so many seconds, when the database's clock is ahead of where it would be."""
    return sight.is_clear(100 + second, AT + timedelta(seconds=second + jump))


def clear() -> Sight:
    """One that has looked twice a second for a quarter of a minute."""
    sight = Sight(LEASE)
    for half in range(31):
        look(sight, half / 2)
    return sight


def test_who_has_only_begun_to_look_knows_nothing() -> None:
    sight = Sight(LEASE)
    assert [second for second in range(10) if look(sight, second)] == [7, 8, 9]


def test_a_look_that_is_late_is_no_gap() -> None:
    assert look(clear(), 20)


def test_after_a_database_that_was_away_looking_begins_anew() -> None:
    sight = clear()
    assert not look(sight, 45)
    assert [second for second in range(46, 56) if look(sight, second)] == [52, 53, 54, 55]


def test_a_clock_that_is_set_or_a_machine_that_slept_is_a_gap() -> None:
    for jump in (3600, -3600):
        sight = clear()
        assert not look(sight, 15.5, jump)
        assert not look(sight, 16, jump)
        assert [second for second in (20, 22, 23) if look(sight, second, jump)] == [23]


def test_a_short_lease_does_without_long_looks() -> None:
    sight = Sight(1.0)
    assert not look(sight, 0)
    assert look(sight, 0.5)
    assert look(sight, 3)
