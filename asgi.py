"""What an ASGI server serves: `hypercorn asgi:app`."""

import gc
import logging

# For a server that leaves the log as it is; Celery sets up that of a worker and of beat.
logging.basicConfig(format="[%(asctime)s: %(levelname)s/%(name)s] %(message)s")
for handler in logging.root.handlers:  # Hypercorn writes its lines by one of its own
    handler.addFilter(lambda record: not record.name.startswith("hypercorn."))
# What is made at the start stays: to look for garbage in it takes a tenth of the time meanwhile,
# and later each collection that walks it all would hold the loop for as long.
gc.disable()

from quart_app.app import create_app  # noqa: E402

app = create_app()
gc.freeze()
gc.enable()
