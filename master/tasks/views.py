"""Tasks over HTTP."""

from flask import Blueprint
from pydantic import Field

from slapos.master import rest
from slapos.master.http import context
from slapos.master.tasks import service
from slapos.protocol.errors import Forbidden, NotFound

blueprint = Blueprint("tasks", __name__, url_prefix="/v1/tasks")


class TaskShown(rest.Answer):
    """Something that the master does by itself."""

    name: str
    summary: str
    every_seconds: float | None = Field(
        description="After how long it looks at everything, sensed or not; null: never."
    )
    began_at: rest.Time | None = Field(description="When its last run began.")
    seconds: float = Field(description="How long that took.")
    done: int = Field(description="How much it did.")
    total: int = Field(description="How much it has done in all.")
    waiting: int = Field(description="How many things wait for it.")
    next_at: rest.Time | None = Field(description="When it is due; null: when it is sensed.")
    failures: int = Field(description="How often it has failed in a row.")
    failed_at: rest.Time | None = Field(description="When it failed last.")
    error: str = Field(description="Why it failed last.")


class TasksShown(rest.Answer):
    """All tasks, by name."""

    tasks: list[TaskShown]


class TaskRequested(rest.Answer):
    """A task that will be done at once."""

    name: str


@blueprint.get("")
@rest.operation(summary="Show what the master does by itself", answer=TasksShown)
def show_tasks() -> TasksShown:
    """Show all tasks."""
    found = service.statuses(context().session, context().clock.now(), context().settings.profile)
    return TasksShown(tasks=[TaskShown.model_validate(each) for each in found])


@blueprint.post("/<name>/run")
@rest.operation(
    summary="Have a task look at everything, at once",
    answer=TaskRequested,
    status=202,
    errors=(NotFound, Forbidden),
)
def run_task(name: str) -> TaskRequested:
    """Have a task done."""
    service.request_run(context().session, name, context().settings.profile)
    return TaskRequested(name=name)
