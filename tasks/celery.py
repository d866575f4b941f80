"""What `celery -A tasks` loads: the Celery application of the Quart application."""

from quart_app.app import create_app
from tasks import logs, node

quart_app = create_app()
app = quart_app.extensions["celery"]
node.prepare(app)
logs.prepare(quart_app)
