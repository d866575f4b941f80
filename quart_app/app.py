"""Where everything meets: `create_app()` makes the Quart application with all its parts."""

import importlib
import inspect
import os
import secrets
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quart import Quart

import settings
from quart_app import (
    cli,
    db,
    lifelines,
    migrations,
    newjobs,
    nodes,
    publisher,
    relay,
    reporter,
    sessions,
    sms,
    submissions,
    traces,
    web,
)
from quart_app.celeryext import QuartCelery
from quart_app.errors import Invalid


def create_app(config: Mapping[str, Any] | None = None) -> Quart:
    """The application; `config` overrides settings.py, key by key."""
    app = Quart(
        "quart_app",
        template_folder=str(settings.BASE / "templates"),
        static_folder="web/static",
        static_url_path="/static",
    )
    app.config.from_object(settings)
    app.config.update(config or {})
    app.config["VAR_DIR"] = settings.BASE / app.config["VAR_DIR"]
    app.config["SECRET_KEY"] = app.config["SECRET_KEY"] or _kept_secret(app.config["VAR_DIR"])
    QuartCelery(app)
    nodes.init_app(app)
    db.init_app(app)
    migrations.init_app(app)
    publisher.init_app(app)
    reporter.init_app(app)
    relay.init_app(app)
    submissions.init_app(app)
    sessions.init_app(app)
    traces.init_app(app)
    web.init_app(app)
    cli.init_app(app)
    _load_extensions(app)
    _load_tasks(app)
    _check_provider(app)
    _check_queues(app)
    return app


def _kept_secret(var: Path) -> str:
    """Made once, and readable by its owner alone."""
    path = var / "secret_key"
    try:
        var.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _made_once(path)
    except OSError as error:
        lifelines.no_folder(var, error)


def _made_once(path: Path) -> str:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        fresh.touch(mode=0o600)
        with fresh.open("w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(fresh)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    if not (key := path.read_text()):
        sys.exit(f"{path} is empty: delete it, and a new key is made.")
    return key


def _load_extensions(app: Quart) -> None:
    for module in app.config["EXTENSIONS"]:
        with _clear("EXTENSIONS", module):
            importlib.import_module(module).init_app(app)


def _load_tasks(app: Quart) -> None:
    """Imports the task modules, so that names and parameters are known on both sides."""
    for module in app.config["CELERY_IMPORTS"]:
        with _clear("CELERY_IMPORTS", module):
            importlib.import_module(module)
    celery = app.extensions["celery"]
    celery.finalize()
    for task in newjobs.tasks_of(celery).values():
        _check_parameters(task)


@contextmanager
def _clear(setting: str, module: str) -> Iterator[None]:
    """Ends the process with one line where a module of somebody's own cannot be loaded."""
    try:
        yield
    except Exception as error:
        sys.exit(f"{setting} = {module!r}: {_told(error, module)}")


def _told(error: Exception, module: str) -> str:
    """What kept the module from being imported, and where."""
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return "there is no such module"
    if isinstance(error, SyntaxError):
        return f"{error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    # What the last module to be loaded has called, a decorator say, is seldom to blame.
    place = ([frame for frame in frames if frame.name == "<module>"] or frames)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"


def _check_parameters(task: Any) -> None:
    """Now that all modules are loaded: what one refers to may stand below it, or in another."""
    try:
        _ = task.parameters
    except (TypeError, NameError) as error:
        code = inspect.unwrap(task.run).__code__
        place = f"{code.co_filename}:{code.co_firstlineno}"
        sys.exit(f"CELERY_IMPORTS = {task.__module__!r}: {task.name}, {error} ({place})")


def _check_provider(app: Quart) -> None:
    if app.config["SMS_PROVIDER"] != "console":
        try:
            sms.provider(app.config["SMS_PROVIDER"])
        except ValueError as error:
            sys.exit(f"SMS_PROVIDER = '***': {error}")


def _check_queues(app: Quart) -> None:
    for name in app.config["CELERY_TASK_QUEUES"] or ():
        try:
            newjobs.check_queue(name)
        except Invalid as wrong:
            sys.exit(f"CELERY_TASK_QUEUES = {name!r}: {wrong.detail}")
