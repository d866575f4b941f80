"""What an ASGI server serves: `hypercorn asgi:app`."""

import gc

from quart_app.app import create_app

app = create_app()
# What is there by now stays: a collection that walks it all holds the loop for a tenth of a second.
gc.freeze()
