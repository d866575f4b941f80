"""How handing a message over can go wrong."""


class Refused(Exception):
    """The provider answered and said no."""


class NotReached(Exception):
    """Not taken, as it did not get there or was told to come again: safe to try again."""


class OutcomeUnknown(Exception):
    """Handed over, or perhaps, and no clear answer: another try could send it twice."""
