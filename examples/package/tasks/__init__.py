"""What `celery -A tasks` finds: the Celery application of the Quart application."""

from app import ext

celery = ext.celery
