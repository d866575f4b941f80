"""Quartermaster: a Quart application that hands work to Celery and shows it happening."""

#: As pyproject.toml has it; the application is not installed, so its metadata cannot be asked.
__version__ = "0.1.0"
