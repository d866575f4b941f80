"""What `celery -A tasks` loads: the Celery application of the Quart application."""

import sys

try:
    from quart_app.app import create_app
    from tasks import logs, node
except ModuleNotFoundError as missing:  # Celery would only say that there is no application here
    sys.exit(f"{missing}: `python3 run.py migrate` installs what is missing.")

quart_app = create_app()
app = quart_app.extensions["celery"]
node.prepare(app)
logs.prepare(quart_app)
