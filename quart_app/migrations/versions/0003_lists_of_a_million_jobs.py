"""Lists and figures that read no more than they show, and which job another was made from."""

import sqlalchemy as sa
from alembic import op

from quart_app.models import ID

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NEW = (
    ["accepted_at", "id", "queue"],
    ["state", "accepted_at", "id", "task", "queue"],
    ["task", "accepted_at", "id"],
    ["queue", "accepted_at", "id"],
    ["finished_at", "queue"],
    ["retry_of"],
)
OLD = ["task", "id"]


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", ID, nullable=True))
    op.drop_index(_name(OLD), table_name="jobs")
    for columns in NEW:
        op.create_index(_name(columns), "jobs", columns)


def downgrade() -> None:
    for columns in reversed(NEW):
        op.drop_index(_name(columns), table_name="jobs")
    op.create_index(_name(OLD), "jobs", OLD)
    op.drop_column("jobs", "retry_of")


def _name(columns: list[str]) -> str:
    return op.f("_".join(["ix", "jobs", *columns]))
