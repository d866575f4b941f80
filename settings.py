"""Every setting, read once from the environment and `.env`; the only place that looks there."""

import hashlib
import json
import os
import re
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from zoneinfo import ZoneInfo

from celery.app import defaults
from celery.app.backends import BACKEND_ALIASES
from celery.schedules import crontab
from dotenv import load_dotenv
from environs import Env, EnvValidationError, ValidationError
from kombu.transport import TRANSPORT_ALIASES
from marshmallow.validate import OneOf, Range
from redis.connection import parse_url

BASE = Path(__file__).resolve().parent


def socket_path(var: Path) -> Path:
    """Where the embedded Redis of `var` listens: a private one of /tmp if the path is long."""
    path = var / "valkey.sock"
    if len(os.fsencode(path)) <= 100:
        return path
    digest = hashlib.sha256(os.fsencode(var)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"quartermaster-{os.getuid()}-{digest}" / "valkey.sock"


def broker_url(redis_url: str) -> str:
    """Celery's spelling of a redis-py URL: unix sockets differ, and what `rediss` trusts."""
    if not redis_url.startswith("unix://"):
        return verified(redis_url)
    path, _, query = redis_url.removeprefix("unix://").partition("?")
    database = parse_qs(query).get("db", ["0"])[0]
    return f"redis+socket://{path}?virtual_host={database}"


def verified(url: str) -> str:
    """redis-py verifies a server with TLS unless told otherwise, Celery the other way round."""
    parts = [
        f"{part}{'&' if '?' in part else '?'}ssl_cert_reqs=required"
        if part.startswith("rediss://") and "ssl_cert_reqs=" not in part
        else part
        for part in url.split(";")
    ]
    return ";".join(parts)


class _Environment(Env):
    """Empty counts as not given, as in a `.env` that lists every name."""

    def _get_value(self, env_key: str, default: Any) -> Any:
        return super()._get_value(env_key, default) or default


def _text(name: str, default: str, **rules: Any) -> str:
    """The default, too, in place of what is wrong, which is told at the end."""
    return env.str(name, default, **rules) or default


def _object(name: str, default: dict[str, Any]) -> dict[str, Any]:
    value: Any = env.json(name, default)
    if not isinstance(value, dict):
        _wrong.setdefault(name, ["expected a JSON object"])
    return value or {}


def _expect(pattern: str, expected: str) -> Any:
    def check(value: str) -> None:
        if not re.match(pattern, value):
            raise ValidationError(f"expected {expected}")

    return check


def _redis(value: str) -> None:
    """A URL that redis-py understands whole: it would pass over a database that is no number."""
    try:
        parse_url(value)  # type: ignore[no-untyped-call]
        parts = urlsplit(value)
        path = r"/.+" if parts.scheme == "unix" else r"/?\d*"
        if not re.fullmatch(path, parts.path):
            raise ValueError(parts.path)
    except ValueError:  # which may tell a part of the password
        expected = "redis://host:6379/0, rediss://host:6379/0 or unix:///path"
        raise ValidationError(f"expected {expected}") from None


def _broker(value: str) -> None:
    """A URL that Celery understands, or several with semicolons."""
    for part in value.split(";"):
        scheme, is_url, _ = part.partition("://")
        try:
            if not (is_url and scheme.partition("+")[0] in TRANSPORT_ALIASES):
                raise ValueError(scheme)
            urlsplit(part).port  # noqa: B018 - raises ValueError
        except ValueError:
            raise ValidationError("expected a URL such as redis://host:6379/0") from None
        if scheme in ("redis", "rediss"):
            _redis(part)


def _backend(value: str) -> None:
    """A URL, or the name of a class of somebody's own."""
    scheme = re.split(r"[+:]", value, maxsplit=1)[0]
    if scheme not in BACKEND_ALIASES and "." not in scheme:
        raise ValidationError("expected a URL such as redis://host:6379/1")
    if scheme in ("redis", "rediss"):
        _redis(value)


def _names(name: str, default: list[str], pattern: str, expected: str) -> list[str]:
    """Of a list with commas; each is `expected`, and matches the whole `pattern`."""
    names = [word.strip() for word in env.list(name, default) if word.strip()] or default
    if not all(re.fullmatch(pattern, each) for each in names):
        _wrong[name] = [f"expected {expected}, with commas between them"]
    return names


def is_zone(name: str) -> bool:
    """Whether it is an IANA time zone, the same on every machine."""
    if re.fullmatch(r"localtime|Factory|posixrules|(posix|right)/.*", name):
        return False  # files beside the zones: this machine's own, or with leap seconds
    try:
        return bool(ZoneInfo(name))
    except (ValueError, OSError, KeyError):
        return False


def _zone(value: str) -> None:
    if not is_zone(value):
        raise ValidationError("expected an IANA time zone such as Asia/Shanghai")


def _beat_schedule(entries: Any) -> dict[str, Any]:
    """`{"name": {"task": …, "schedule": seconds or "* * * * *"}}` as Celery has it."""
    name: Any = None
    try:
        found = {}
        for name, entry in entries.items():
            whole = {"task": str(entry["task"]), "schedule": _when(entry["schedule"])}
            found[name] = entry | whole
    except (AttributeError, KeyError, TypeError, ValueError):
        expected = '{"name": {"task": "…", "schedule": seconds or "* * * * *"}}'
        where = f"{name!r} is wrong; " if name is not None else ""
        _wrong["CELERY_BEAT_SCHEDULE"] = [f"{where}expected {expected}"]
        return {}
    return found


def _when(schedule: Any) -> Any:
    if isinstance(schedule, str):
        return crontab.from_string(schedule)
    return timedelta(seconds=schedule) if isinstance(schedule, (int, float)) else schedule


#: By Celery's name of an option's type: what its JSON has to be.
_SHAPES: dict[str, tuple[Any, str]] = {
    "dict": (dict, "a JSON object"),
    "list": (list, "a JSON list"),
    "tuple": (list, "a JSON list"),
    "any": ((dict, list, str), "a JSON object or list"),
}


def _from_environment() -> dict[str, Any]:
    """Any other `CELERY_*` of the environment that Celery itself knows, in its type."""
    options = dict(defaults.flatten(defaults.NAMESPACES))
    found: dict[str, Any] = {}
    for name in celery_names():
        text, option = os.environ[name], options.get(name.removeprefix("CELERY_").lower())
        if not (text and option) or name in globals():
            continue
        shapes, expected = _SHAPES.get(option.type, ((), option.type))
        try:
            found[name] = json.loads(text) if shapes else option.to_python(text)
            if shapes and not isinstance(found[name], shapes):
                raise TypeError(text)
        except (TypeError, ValueError):
            _wrong[name] = [f"expected {expected}"]
    return found


def celery_names() -> list[str]:
    """Every `CELERY_*` of the environment, whether anything reads it or not."""
    return sorted(name for name in os.environ if name.startswith("CELERY_"))


def other_names() -> list[str]:
    """All the rest of it."""
    return sorted(os.environ.keys() - celery_names())


def _one_line(name: str, messages: list[str]) -> str:
    """The name, the value with its secrets masked, and what was expected."""
    value = os.environ.get(name)
    shown = name if value is None else f"{name} = {_masked(name, value)!r}"
    return f"{shown}: {' '.join(messages)}"


def _masked(name: str, value: str) -> str:
    """The value without its secrets, wherever a slip of the pen may have put them."""
    if re.search("SECRET|PASSWORD|TOKEN|KEY|PROVIDER", name):
        return "***"
    if "@" in value:
        value = re.sub(r"^(\w*).*@", r"\1://***@", value, flags=re.DOTALL)
    else:
        value = re.sub(r":(?!//).*", ":***", value, flags=re.DOTALL)
    return re.sub(r"\?.*", "?***", value, flags=re.DOTALL)


_wrong: dict[str, list[str]] = {}
# Into the environment itself, where Celery, OpenTelemetry and a few lines below look, too.
load_dotenv(BASE / ".env")
env = _Environment(eager=False)

# Where things are kept
VAR_DIR = BASE / _text("VAR_DIR", "var")
DATABASE_URL = _text(
    "DATABASE_URL",
    f"sqlite:///{VAR_DIR}/quartermaster.sqlite3",
    validate=_expect(
        r"(mysql|mariadb)(\+\w+)?://([^/]*@)?[^/:@]*(:\d+)?/\w|sqlite(\+\w+)?:///[^:]",
        "mysql://user:password@host/name, with %40 for @ and %2F for / in the password,"
        " or sqlite:///path",
    ),
)
REDIS_URL = _text(
    "REDIS_URL",
    f"unix://{quote(str(socket_path(VAR_DIR)))}",
    validate=_redis,
)
CELERY_BROKER_URL = verified(_text("CELERY_BROKER_URL", broker_url(REDIS_URL), validate=_broker))
#: True when nothing names a Redis: `up` then starts one that nobody else reaches.
EMBEDDED_REDIS = not os.environ.get("REDIS_URL")
#: True when the messages go by it, too.
EMBEDDED_BROKER = EMBEDDED_REDIS and not os.environ.get("CELERY_BROKER_URL")
ALLOW_DIRECT_CALLS = env.bool("ALLOW_DIRECT_CALLS", EMBEDDED_BROKER)

# Traces, by OpenTelemetry's own names; its SDK reads all others of them by itself
OTEL_EXPORTER_OTLP_TRACES_PROTOCOL = _text(
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    _text("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    validate=OneOf(["http/protobuf", "grpc"]),
)
_OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
OTEL_TRACES_EXPORTER = _text(
    "OTEL_TRACES_EXPORTER", "otlp" if any(map(os.environ.get, _OTLP)) else "none"
)

# The web
SECRET_KEY: str | None = env.str("SECRET_KEY", None)
SESSION_BACKEND = _text("SESSION_BACKEND", "cookie", validate=OneOf(["cookie", "redis"]))
ALLOWED_HOSTS = _names(
    "ALLOWED_HOSTS",
    ["localhost", "127.0.0.1", "[::1]"],
    r"\*|[^/\s:]+|\[[\da-fA-F:.]+\]",
    "host names without scheme and port",
)
MAX_CONTENT_LENGTH = 256 * 1024
MAX_BATCH_CONTENT_LENGTH = 16 * 1024 * 1024
BODY_TIMEOUT = 15
#: Seconds that a request waits for others whose transactions it shares, and for that itself.
REQUEST_PATIENCE = env.float("REQUEST_PATIENCE", 25.0, validate=Range(min=0.1))
#: Sockets and streams that one token may have open on one web process.
MAX_SOCKETS_PER_TOKEN = env.int("MAX_SOCKETS_PER_TOKEN", 2_500, validate=Range(min=1))
MAX_FOLLOWS_PER_SOCKET = env.int("MAX_FOLLOWS_PER_SOCKET", 1_000, validate=Range(min=1))
#: What a client may send over one socket, on average; for a moment five times as much.
MAX_FRAMES_PER_SECOND = env.int("MAX_FRAMES_PER_SECOND", 100, validate=Range(min=1))

# Jobs
MAX_QUEUE_DEPTH = env.int("MAX_QUEUE_DEPTH", 100_000, validate=Range(min=1))
#: Days for which a job is kept after its end; a day at least, as Idempotency-Keys are.
KEEP_SUCCEEDED = env.float("KEEP_SUCCEEDED", 7.0, validate=Range(min=1))
KEEP_FAILED = env.float("KEEP_FAILED", 30.0, validate=Range(min=1))
KEEP_CANCELLED = env.float("KEEP_CANCELLED", 30.0, validate=Range(min=1))
#: Days for which the record of who changed what is kept.
KEEP_AUDIT = env.float("KEEP_AUDIT", 365.0, validate=Range(min=1))
#: Seconds a worker may be silent before its job is given to another.
JOB_LEASE = env.float("JOB_LEASE", 15.0, validate=Range(min=1))
#: Seconds the broker has to take a message before the relay tries again.
PUBLISH_TIMEOUT = env.float("PUBLISH_TIMEOUT", 1.0, validate=Range(min=0.01))
#: What a task logs by `logging` from this level on is kept with its job, as `self.log` is.
JOB_LOG_LEVEL = _text(
    "JOB_LOG_LEVEL", "INFO", validate=OneOf(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
)

# SMS
SMS_PROVIDER = _text(
    "SMS_PROVIDER",
    "console",
    validate=_expect(r"console$|[A-Za-z0-9+]+://", "console or a URL such as twilio://…"),
)
SMS_DEFAULT_REGION = _text(
    "SMS_DEFAULT_REGION", "CN", validate=_expect(r"[A-Z]{2}$", "a region such as CN, DE or US")
)

# Celery: every key of these reaches it, and no other
CELERY_RESULT_BACKEND = verified(_text("CELERY_RESULT_BACKEND", "", validate=_backend)) or None
CELERY_TASK_SERIALIZER = _text("CELERY_TASK_SERIALIZER", "json", validate=OneOf(["json"]))
CELERY_RESULT_SERIALIZER = _text("CELERY_RESULT_SERIALIZER", "json", validate=OneOf(["json"]))
CELERY_ACCEPT_CONTENT = [_text("CELERY_ACCEPT_CONTENT", "json", validate=OneOf(["json"]))]
CELERY_TIMEZONE = _text("CELERY_TIMEZONE", "Asia/Shanghai", validate=_zone)
CELERY_ENABLE_UTC = env.bool("CELERY_ENABLE_UTC", True)
CELERY_IMPORTS = tuple(
    _names("CELERY_IMPORTS", ["tasks.scheduler", "tasks.background"], r"[\w.]+", "modules")
)
#: Modules with views, tables or commands of one's own: `init_app(app)` of each is called.
EXTENSIONS = _names("EXTENSIONS", [], r"[\w.]+", "modules")
CELERY_TASK_QUEUES = {
    name: {"exchange": name, "routing_key": name}
    for name in _names("CELERY_TASK_QUEUES", ["celery"], r"\S+", "names of queues")
}
CELERY_TASK_TIME_LIMIT = env.int("CELERY_TASK_TIME_LIMIT", 3600, validate=Range(min=1))
CELERY_TASK_IGNORE_RESULT = env.bool("CELERY_TASK_IGNORE_RESULT", True)
CELERY_TASK_PUBLISH_RETRY_POLICY = _object("CELERY_TASK_PUBLISH_RETRY_POLICY", {"max_retries": 0})
#: `%(about)s` names the job and the request that a line belongs to.
CELERY_WORKER_LOG_FORMAT = _text(
    "CELERY_WORKER_LOG_FORMAT",
    "[%(asctime)s: %(levelname)s/%(processName)s] %(about)s%(message)s",
)
CELERY_WORKER_TASK_LOG_FORMAT = _text(
    "CELERY_WORKER_TASK_LOG_FORMAT",
    "[%(asctime)s: %(levelname)s/%(processName)s] %(about)s%(task_name)s: %(message)s",
)
CELERY_WORKER_CONCURRENCY = env.int("CELERY_WORKER_CONCURRENCY", None, validate=Range(min=1))
CELERY_WORKER_PREFETCH_MULTIPLIER = env.int(
    "CELERY_WORKER_PREFETCH_MULTIPLIER", 1, validate=Range(min=0)
)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = env.bool(
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP", True
)
CELERY_BROKER_CONNECTION_MAX_RETRIES = env.int("CELERY_BROKER_CONNECTION_MAX_RETRIES", None)
CELERY_BROKER_TRANSPORT_OPTIONS = _object(
    "CELERY_BROKER_TRANSPORT_OPTIONS",
    # Of doorbells nobody needs to know who took them: the relay rings again what went unheard.
    {"socket_connect_timeout": 2, "socket_timeout": 5, "ack_emulation": ALLOW_DIRECT_CALLS}
    if CELERY_BROKER_URL.startswith("redis")
    else {},
)
CELERY_BEAT_SCHEDULER = _text("CELERY_BEAT_SCHEDULER", "tasks.beat:Scheduler")
CELERY_BEAT_SCHEDULE = _beat_schedule(
    env.json(
        "CELERY_BEAT_SCHEDULE",
        {
            "tasks": {"task": "tasks.scheduler.send_sms", "schedule": "*/1 * * * *", "args": ()},
            "prune": {"task": "tasks.scheduler.prune", "schedule": "17 * * * *", "args": ()},
        }
        if "tasks.scheduler" in CELERY_IMPORTS
        else {},
    )
)
globals().update(_from_environment())

if not (SECRET_KEY or DATABASE_URL.startswith("sqlite")):
    _wrong["SECRET_KEY"] = ["expected a long random text: several machines may share a database"]
try:
    env.seal()
except EnvValidationError as error:
    _wrong.update(error.error_messages)  # type: ignore[arg-type]  # a mapping from seal()
if _wrong:
    sys.exit("\n".join(_one_line(name, messages) for name, messages in sorted(_wrong.items())))
