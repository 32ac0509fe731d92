"""What is measured when somebody asks: the same in every process, as it is in the database."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from slapos.master.tasks.model import TaskMark, TaskState

STATES = select(TaskState.name, TaskState.total, TaskState.failures, TaskState.began_at)
MARKS = select(TaskMark.name, func.count().label("waiting")).group_by(TaskMark.name)


class Measured(Collector):
    """Looks into the database; that it does not answer is a measure, too."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Measure."""
        try:
            with self._engine.connect() as connection:
                states, marks = connection.execute(STATES).all(), connection.execute(MARKS).all()
        except SQLAlchemyError:
            states, marks, is_up = [], [], 0
        else:
            is_up = 1
        yield GaugeMetricFamily(
            "slapos_master_database_up", "Whether the database answers.", value=is_up
        )
        done = CounterMetricFamily(
            "slapos_master_task_done", "How much a task has done.", labels=["task"]
        )
        failures = GaugeMetricFamily(
            "slapos_master_task_failures", "Failures of a task in a row.", labels=["task"]
        )
        began = GaugeMetricFamily(
            "slapos_master_task_last_run_timestamp_seconds",
            "When a task ran last, in seconds since 1970.",
            labels=["task"],
        )
        waiting = GaugeMetricFamily(
            "slapos_master_task_waiting", "What waits to be done by a task.", labels=["task"]
        )
        for state in states:
            done.add_metric([state.name], state.total)
            failures.add_metric([state.name], state.failures)
            if state.began_at is not None:
                began.add_metric([state.name], state.began_at.timestamp())
        for mark in marks:
            waiting.add_metric([mark.name], mark.waiting)
        yield from (done, failures, began, waiting)
