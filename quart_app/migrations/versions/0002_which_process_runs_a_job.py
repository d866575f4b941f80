"""Which process runs a job, and what becomes of it when that is lost."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("holder", sa.String(length=64), nullable=True))
    on_lost = sa.Column("on_lost", sa.String(length=8), nullable=False, server_default="retry")
    op.add_column("jobs", on_lost)


def downgrade() -> None:
    op.drop_column("jobs", "on_lost")
    op.drop_column("jobs", "holder")
