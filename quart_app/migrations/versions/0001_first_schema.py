"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from quart_app.models import DIGEST, ID, LONG_TEXT, Json, Time

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLE: Any = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_engine": "InnoDB",
}


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ID, nullable=False),
        sa.Column("task", sa.String(length=255), nullable=False),
        sa.Column("args", Json(), nullable=False),
        sa.Column("kwargs", Json(), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("progress", Json(), nullable=True),
        sa.Column("result", Json(), nullable=True),
        sa.Column("error", LONG_TEXT, nullable=True),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("accepted_at", Time(), nullable=False),
        sa.Column("available_at", Time(), nullable=False),
        sa.Column("published_at", Time(), nullable=True),
        sa.Column("rings", sa.Integer(), nullable=False),
        sa.Column("eta", Time(), nullable=True),
        sa.Column("started_at", Time(), nullable=True),
        sa.Column("finished_at", Time(), nullable=True),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("lease_until", Time(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("unique_key", sa.String(length=255), nullable=True),
        sa.Column("live_key", DIGEST, nullable=True),
        sa.Column("idempotency_key", DIGEST, nullable=True),
        sa.Column("idempotency_body", DIGEST, nullable=True),
        sa.Column("schedule_id", ID, nullable=True),
        sa.Column("context", Json(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_jobs_idempotency_key")),
        sa.UniqueConstraint("live_key", name=op.f("uq_jobs_live_key")),
        sa.UniqueConstraint("schedule_id", "eta", name=op.f("uq_jobs_schedule_id_eta")),
        **TABLE,
    )
    op.create_index(
        "ix_jobs_unheard",
        "jobs",
        ["state", "queue", "published_at", "priority", "available_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_jobs_state_available_at"), "jobs", ["state", "available_at"], unique=False
    )
    op.create_index(
        op.f("ix_jobs_state_lease_until"), "jobs", ["state", "lease_until"], unique=False
    )
    op.create_index(op.f("ix_jobs_task_id"), "jobs", ["task", "id"], unique=False)
    op.create_table(
        "messages",
        sa.Column("id", ID, nullable=False),
        sa.Column("to", sa.String(length=32), nullable=False),
        sa.Column("text", LONG_TEXT, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("job_id", ID, nullable=True),
        sa.Column("send_at", Time(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("sent_at", Time(), nullable=True),
        sa.Column("provider", sa.String(length=255), nullable=True),
        sa.Column("error", LONG_TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("job_id", name=op.f("uq_messages_job_id")),
        **TABLE,
    )
    op.create_index(
        op.f("ix_messages_state_send_at"), "messages", ["state", "send_at"], unique=False
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("boot", ID, nullable=False),
        sa.Column("info", Json(), nullable=False),
        sa.Column("started_at", Time(), nullable=False),
        sa.Column("seen_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_nodes")),
        **TABLE,
    )
    op.create_table(
        "schedules",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("task", sa.String(length=255), nullable=False),
        sa.Column("args", Json(), nullable=False),
        sa.Column("kwargs", Json(), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=True),
        sa.Column("cron", sa.String(length=255), nullable=True),
        sa.Column("interval", sa.Double(), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("starts_at", Time(), nullable=True),
        sa.Column("ends_at", Time(), nullable=True),
        sa.Column("missed", sa.String(length=8), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_at", Time(), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules_name")),
        **TABLE,
    )
    op.create_index(op.f("ix_schedules_next_at"), "schedules", ["next_at"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("expires_at", Time(), nullable=True),
        sa.Column("used_at", Time(), nullable=True),
        sa.Column("link_digest", DIGEST, nullable=True),
        sa.Column("link_until", Time(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_tokens_digest")),
        sa.UniqueConstraint("link_digest", name=op.f("uq_tokens_link_digest")),
        sa.UniqueConstraint("name", name=op.f("uq_tokens_name")),
        **TABLE,
    )
    op.create_table(
        "events",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", Time(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("data", Json(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_events_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_events")),
        **TABLE,
    )


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("tokens")
    op.drop_index(op.f("ix_schedules_next_at"), table_name="schedules")
    op.drop_table("schedules")
    op.drop_table("nodes")
    op.drop_index(op.f("ix_messages_state_send_at"), table_name="messages")
    op.drop_table("messages")
    op.drop_index("ix_jobs_unheard", table_name="jobs")
    op.drop_index(op.f("ix_jobs_task_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_state_lease_until"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_state_available_at"), table_name="jobs")
    op.drop_table("jobs")
