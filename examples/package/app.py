"""The study guide's second way, in Quart: settings in a module of their own, tasks in a package.

celery -A tasks worker -P solo -E --loglevel=info
celery -A tasks beat --loglevel=info
hypercorn app:app
curl -X POST http://127.0.0.1:8000/task
"""

import sys
from pathlib import Path

from quart import Quart

# The extension could be installed; here it lies two folders up.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from quart_app.celeryext import QuartCelery

app = Quart(__name__)
app.config.from_object("settings")
ext = QuartCelery(app)


@app.before_serving
async def load_tasks() -> None:
    """Imports CELERY_IMPORTS: they import this module, which is whole by now."""
    ext.celery.loader.import_default_modules()


@app.post("/task")
async def task() -> str:
    # By its name: nothing of `tasks` is imported here, so no import can go in a circle.
    result = await ext.celery.tasks["tasks.background.async_send_sms"].adelay()
    return str(result.id)
