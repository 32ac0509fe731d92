"""Every task there is: each room's `tasks.py`, in one place."""

from collections.abc import Mapping

from slapos.master.audit import tasks as audit
from slapos.master.nodes import tasks as nodes
from slapos.master.provisioning import tasks as provisioning
from slapos.master.rest import tasks as rest
from slapos.master.tasks.task import Task

ROOMS: tuple[tuple[Task, ...], ...] = (nodes.TASKS, provisioning.TASKS, rest.TASKS, audit.TASKS)
TASKS: Mapping[str, Task] = {task.name: task for room in ROOMS for task in room}
