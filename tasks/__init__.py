"""The tasks, and Celery's way in: `celery -A tasks worker`, `celery -A tasks beat`."""
