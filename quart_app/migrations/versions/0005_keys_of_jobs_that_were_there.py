"""Idempotency-Keys whose requests were answered with a job that was there already."""

import sqlalchemy as sa
from alembic import op

from quart_app.models import DIGEST, ID, Base, Time

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "repeats",
        sa.Column("idempotency_key", DIGEST, nullable=False),
        sa.Column("idempotency_body", DIGEST, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("accepted_at", Time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_repeats_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("idempotency_key", name=op.f("pk_repeats")),
        **Base.__table_args__,
    )
    op.create_index(op.f("ix_repeats_job_id"), "repeats", ["job_id"], unique=False)
    op.create_index(op.f("ix_repeats_accepted_at"), "repeats", ["accepted_at"], unique=False)


def downgrade() -> None:
    op.drop_table("repeats")
