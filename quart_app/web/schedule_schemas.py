"""Schedules as the API takes and gives them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from quart_app import duetimes, models
from quart_app.events import timestamp
from quart_app.web.schemas import Moment, Plain, Strict

Name = Annotated[Plain, Field(min_length=1, max_length=255)]
Missed = Literal["skip", "once", "all"]
Stamp = Annotated[
    datetime,
    PlainSerializer(timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class _Rule(Strict):
    args: list[Any] = Field(default_factory=list, max_length=100)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    queue: Plain | None = Field(None, min_length=1, max_length=100)
    cron: Plain | None = Field(
        None, max_length=duetimes.LONGEST_CRON, description="Five fields, or a form as @daily."
    )
    interval: float | None = Field(
        None, ge=duetimes.SHORTEST, le=duetimes.LONGEST, strict=True, description="Seconds."
    )
    timezone: Plain | None = Field(None, description="IANA; CELERY_TIMEZONE if not given.")
    starts_at: Moment | None = Field(None, description="ISO 8601 with offset.")
    ends_at: Moment | None = Field(None, description="ISO 8601 with offset.")
    missed: Missed | None = Field(
        None, description="What becomes of due times that no beat saw; once if not given."
    )


class NewSchedule(_Rule):
    """A schedule to make; `cron` and `interval` exclude each other, and one of them is needed."""

    name: Name
    task: Name = Field(examples=["tasks.background.async_send_sms"])


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field.pop("default", None)


class Change(_Rule):
    """What is not given stays; a cron takes the place of an interval, and an interval of a cron."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    name: Name = Field(default_factory=str)
    task: Name = Field(default_factory=str)


class Schedule(Strict):
    """A rule that makes jobs."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    id: str
    name: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str | None
    cron: str | None
    interval: float | None
    timezone: str
    starts_at: Stamp | None
    ends_at: Stamp | None
    missed: Missed
    paused: bool
    next_at: Stamp | None = Field(description="None while it is paused and when it has ended.")
    source: Literal["settings", "api"]
    created_at: Stamp


class Schedules(BaseModel):
    """All schedules, by name."""

    items: list[Schedule]


class Ahead(Strict):
    """How far to look ahead."""

    count: int = Field(5, ge=1, le=1_000)


class Times(BaseModel):
    """Due times to come."""

    times: list[datetime] = Field(description="With the offset of the schedule's zone.")
    dst: list[int] = Field(description="The indices of times that a clock change moved.")


def schedule_json(schedule: models.Schedule) -> dict[str, Any]:
    return Schedule.model_validate(schedule).model_dump(mode="json")
