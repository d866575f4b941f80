"""Messages keep who asked for them; those that a job left behind when it ended have their end."""

import sqlalchemy as sa
from alembic import op

from quart_app.models import DIGEST, ID, Json

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_MESSAGES = sa.table("messages", *map(sa.column, ("id", "job_id", "state", "error")))
_JOBS = sa.table("jobs", sa.column("id", ID), sa.column("state"))


def upgrade() -> None:
    op.add_column("messages", sa.Column("context", Json(), nullable=True))
    op.add_column("messages", sa.Column("idempotency_key", DIGEST, nullable=True))
    op.create_index(
        op.f("ix_messages_idempotency_key"), "messages", ["idempotency_key"], unique=True
    )
    _end_what_was_left_behind()


def downgrade() -> None:
    op.drop_index(op.f("ix_messages_idempotency_key"), table_name="messages")
    op.drop_column("messages", "idempotency_key")
    op.drop_column("messages", "context")


def _end_what_was_left_behind() -> None:
    connection = op.get_bind()
    jobs = _MESSAGES.outerjoin(_JOBS, _JOBS.c.id == _MESSAGES.c.job_id)
    has_ended = _JOBS.c.id.is_(None) | _JOBS.c.state.in_(["failed", "cancelled"])
    waits = _MESSAGES.c.state == "waiting"
    left = sa.select(_MESSAGES.c.id).select_from(jobs)
    # Read first, then changed one by one: a wide statement would lock the jobs of others.
    left = left.where(waits, _MESSAGES.c.job_id.is_not(None), has_ended)
    ended = {"state": "failed", "error": "its job ended before it was handed over"}
    for message_id in connection.scalars(left).all():
        connection.execute(
            _MESSAGES.update().where(_MESSAGES.c.id == message_id, waits).values(ended)
        )
