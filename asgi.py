"""What an ASGI server serves: `hypercorn asgi:app`."""

import gc

# What is made at the start stays: to look for garbage in it takes a tenth of the time meanwhile,
# and later each collection that walks it all would hold the loop for as long.
gc.disable()

from quart_app.app import create_app  # noqa: E402

app = create_app()
gc.freeze()
gc.enable()
