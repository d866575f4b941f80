"""What an ASGI server serves: `hypercorn asgi:app`."""

from quart_app.app import create_app

app = create_app()
