"""The tables: the ledger of jobs and what surrounds it."""

import enum
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    CHAR,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine


class Time(TypeDecorator[datetime]):
    """An aware datetime, kept to the microsecond in UTC."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        try:
            return value and value.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:  # within a day of the calendar's first or last
            return value and value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


class Json(TypeDecorator[Any]):
    """JSON as text: read back exactly as written, and searchable in any script."""

    impl = Text
    cache_ok = True
    _encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(LONG_TEXT.dialect_impl(dialect))

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return self._encode(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


LONG_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
#: A UUID in its text form, or the hexadecimal SHA-256 of something.
ID = CHAR(36).with_variant(
    mysql.CHAR(36, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
DIGEST = CHAR(64).with_variant(
    mysql.CHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)


class JobState(enum.StrEnum):
    SCHEDULED = "scheduled"  #: waits for its time
    QUEUED = "queued"  #: accepted and durable
    RUNNING = "running"  #: held by one worker under a lease
    RETRYING = "retrying"  #: failed, waits for its next attempt
    SUCCEEDED = "succeeded"  #: final
    FAILED = "failed"  #: final, unless retried by hand
    CANCELLED = "cancelled"  #: final, unless retried by hand


class MessageState(enum.StrEnum):
    WAITING = "waiting"  #: not handed over yet
    SENDING = "sending"  #: marked before the provider is called
    SENT = "sent"  #: the provider took it
    FAILED = "failed"  #: nobody has it: it was refused or cancelled, or its job ended first
    UNKNOWN = "unknown"  #: handed over, but no answer came; never sent again by itself


class Role(enum.StrEnum):
    VIEWER = "viewer"  #: reads
    OPERATOR = "operator"  #: also submits, cancels, retries, runs
    ADMIN = "admin"  #: also changes schedules and reads the audit log


def _names(kind: type[enum.StrEnum]) -> Enum:
    """The values as plain text, so that a new one needs no migration."""
    return Enum(
        kind, native_enum=False, create_constraint=False, length=16,
        values_callable=lambda members: [member.value for member in members],
    )  # fmt: skip


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Time, str: String(255), Any: Json}  # noqa: RUF012
    # Compared byte by byte, as SQLite does; else "a" equals "A" on MySQL, and one emoji another.
    __table_args__: Any = {  # noqa: RUF012
        "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin", "mysql_engine": "InnoDB"
    }  # fmt: skip


class Job(Base):
    """One run of a task. The row is the truth; its message on the broker is only a doorbell."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    task: Mapped[str]
    args: Mapped[Any] = mapped_column(Json, default=list)
    kwargs: Mapped[Any] = mapped_column(Json, default=dict)
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger, default=0)
    state: Mapped[JobState] = mapped_column(_names(JobState))
    #: How often it was started; the fencing token of whoever runs it.
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=1)
    #: How often its worker was lost under it, and what then becomes of it: "retry" or "fail".
    losses: Mapped[int] = mapped_column(default=0)
    on_lost: Mapped[str] = mapped_column(String(8), default="retry", server_default="retry")
    progress: Mapped[Any | None] = mapped_column(Json)
    result: Mapped[Any | None] = mapped_column(Json)
    error: Mapped[str | None] = mapped_column(LONG_TEXT)
    #: The seq of its newest event.
    last_seq: Mapped[int] = mapped_column(default=0)
    accepted_at: Mapped[datetime]
    #: When it may next be claimed.
    available_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    #: How often the doorbell was rung since it was last queued.
    rings: Mapped[int] = mapped_column(default=0)
    eta: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    #: Which process of that worker: the boot of its node, "/" and its pid.
    holder: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    unique_key: Mapped[str | None]
    #: Digest of task and unique_key while the job is live, so that a second one cannot be made.
    live_key: Mapped[str | None] = mapped_column(DIGEST, unique=True)
    #: Digest of the caller and its Idempotency-Key, and of the body it came with.
    idempotency_key: Mapped[str | None] = mapped_column(DIGEST, unique=True)
    idempotency_body: Mapped[str | None] = mapped_column(DIGEST)
    schedule_id: Mapped[str | None] = mapped_column(ID)
    #: The job that this one was made from, with other arguments.
    retry_of: Mapped[str | None] = mapped_column(ID, index=True)
    #: What travels with the job: request id, acting user, locale, traceparent.
    context: Mapped[Any] = mapped_column(Json, default=dict)

    #: True when submitting found this live job of the same task and unique_key.
    duplicate = False

    __table_args__ = (
        # One job for one due time of a schedule: any number of beats may try.
        UniqueConstraint("schedule_id", "eta"),
        Index(None, "state", "available_at"),
        Index(None, "state", "lease_until"),
        # What the relay looks for: of each queue what was never rung, and what was rung first.
        Index("ix_jobs_unheard", "state", "queue", "published_at", "priority", "available_at"),
        # Lists, newest first; what comes after the id is there to be read without the row.
        Index(None, "accepted_at", "id", "queue"),
        Index(None, "state", "accepted_at", "id", "task", "queue"),
        Index(None, "task", "accepted_at", "id"),
        Index(None, "queue", "accepted_at", "id"),
        Index(None, "finished_at", "queue"),
        Base.__table_args__,
    )


class Repeat(Base):
    """An Idempotency-Key whose request was answered with a live job of its unique_key."""

    __tablename__ = "repeats"

    idempotency_key: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    idempotency_body: Mapped[str] = mapped_column(DIGEST)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    accepted_at: Mapped[datetime] = mapped_column(index=True)


class Event(Base):
    """Something that happened to a job: a change of state or a line of its log."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(
        ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[Any] = mapped_column(Json)


class Schedule(Base):
    """A rule that makes jobs."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    task: Mapped[str]
    args: Mapped[Any] = mapped_column(Json, default=list)
    kwargs: Mapped[Any] = mapped_column(Json, default=dict)
    queue: Mapped[str | None]
    #: Cron fields or a form such as @daily, or an interval in seconds: one of the two.
    cron: Mapped[str | None]
    interval: Mapped[float | None]
    timezone: Mapped[str] = mapped_column(String(64))
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    #: What becomes of due times that passed while no beat ran: skip, once or all.
    missed: Mapped[str] = mapped_column(String(8), default="once")
    paused: Mapped[bool] = mapped_column(default=False)
    next_at: Mapped[datetime | None] = mapped_column(index=True)
    #: "settings" or "api".
    source: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class Message(Base):
    """One SMS to one number."""

    __tablename__ = "messages"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    #: E.164: "+8613800138000".
    to: Mapped[str] = mapped_column(String(32))
    text: Mapped[str] = mapped_column(LONG_TEXT)
    state: Mapped[MessageState] = mapped_column(_names(MessageState))
    #: The job that hands it over.
    job_id: Mapped[str | None] = mapped_column(ID, unique=True)
    send_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    #: The provider's name, never its address or credentials.
    provider: Mapped[str | None]
    error: Mapped[str | None] = mapped_column(LONG_TEXT)
    #: What travels with a scheduled one into its job, as `Job.context`.
    context: Mapped[Any | None] = mapped_column(Json)
    #: Digest that tells whether a scheduled one is asked for again.
    idempotency_key: Mapped[str | None] = mapped_column(DIGEST, index=True, unique=True)

    __table_args__ = (Index(None, "state", "send_at"), Base.__table_args__)


class Token(Base):
    """Who may call the API; the token itself is never kept, only its digest."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str] = mapped_column(DIGEST, unique=True)
    role: Mapped[Role] = mapped_column(_names(Role))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    #: To the minute or so: nobody waits for it to be written.
    used_at: Mapped[datetime | None]
    #: Patterns of the tasks it may use; None means all.
    tasks: Mapped[Any | None] = mapped_column(Json)
    #: Digest of a one-time sign-in link, and when it ends.
    link_digest: Mapped[str | None] = mapped_column(DIGEST, unique=True)
    link_until: Mapped[datetime | None]


class Node(Base):
    """A worker or a beat that is running, and when it was last heard of."""

    __tablename__ = "nodes"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: "worker" or "beat".
    kind: Mapped[str] = mapped_column(String(16))
    #: Differs between two lives of the same node.
    boot: Mapped[str] = mapped_column(ID)
    info: Mapped[Any] = mapped_column(Json, default=dict)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class AuditEntry(Base):
    """Who changed what, by which way; what was submitted is told by the jobs themselves."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    #: A token's name, or "cli:" and that of a user of the machine; empty for a stranger.
    actor: Mapped[str]
    #: api, console, cli, or code for a task.
    via: Mapped[str] = mapped_column(String(16))
    #: A noun and a verb: "job.cancel".
    action: Mapped[str] = mapped_column(String(64))
    #: The noun's id, or of a token its name.
    target: Mapped[str | None] = mapped_column(index=True)
    request_id: Mapped[str | None] = mapped_column(String(128))
    detail: Mapped[Any] = mapped_column(Json, default=dict)
