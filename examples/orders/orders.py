"""A view, a table, a command and a task of one's own: an order and the job that ships it.

Copy it beside run.py, and name it in `.env` there; what else these two lists name stays in them:

    EXTENSIONS=orders
    CELERY_IMPORTS=tasks.scheduler,tasks.background,orders

    python3 run.py create-orders
    python3 run.py
    curl -d '{"name": "Ada"}' -H 'Content-Type: application/json' \\
        -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/orders
    curl http://127.0.0.1:8000/orders
"""

from typing import Any

from pydantic import BaseModel
from quart import Blueprint, Quart
from quart_schema import validate_request
from sqlalchemy import String, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from quart_app import db, jobs
from quart_app.models import Job
from quart_app.web import auth
from tasks.base import task


class Base(DeclarativeBase):
    """Apart from Quartermaster's own, so that the migrations of each leave the other's alone."""


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    shipped: Mapped[bool] = mapped_column(default=False)


class NewOrder(BaseModel):
    name: str


blueprint = Blueprint("orders", __name__, url_prefix="/orders")


@blueprint.post("")
@validate_request(NewOrder)
async def place(data: NewOrder) -> Any:
    """Who has no token, or one of a viewer, gets no further than here."""
    job = await db.run(accept, data.name)  # one transaction, off the event loop
    return {"job": job.id}, 202, {"Location": f"/api/jobs/{job.id}"}


@blueprint.get("")
@auth.public
async def count() -> Any:
    """Open to all: without `auth.public` it would ask for a token."""
    return {"shipped": await db.read(shipped)}


@task(bind=True, max_attempts=3)
def ship(self: Any, order_id: int) -> str:
    self.log(f"order {order_id} is packed")
    self.at_success(mark, order_id)  # in the transaction that records the success
    return f"order {order_id} is on its way"


def accept(session: Session, name: str) -> Job:
    """The order and its job: both or neither."""
    order = Order(name=name)
    session.add(order)
    session.flush()
    return jobs.submit(session, "orders.ship", kwargs={"order_id": order.id})


def shipped(session: Session) -> int:
    return session.scalars(select(func.count()).where(Order.shipped)).one()


def mark(session: Session, order_id: int) -> None:
    session.get_one(Order, order_id).shipped = True


def init_app(app: Quart) -> None:
    """Called once in each process of Quartermaster: web, worker, beat and commands."""
    app.register_blueprint(blueprint)

    @app.cli.command("create-orders")
    def create() -> None:
        """Makes the table; a bigger application would have an Alembic of its own."""
        Base.metadata.create_all(app.extensions["db"].engine)
