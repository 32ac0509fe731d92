"""Every task there is: each room's `tasks.py`, in one place."""

from collections.abc import Mapping

from slapos.master.audit import tasks as audit
from slapos.master.catalog import tasks as catalog
from slapos.master.identity import tasks as identity
from slapos.master.mail import tasks as mail
from slapos.master.monitoring import tasks as monitoring
from slapos.master.nodes import tasks as nodes
from slapos.master.provisioning import tasks as provisioning
from slapos.master.remote import tasks as remote
from slapos.master.rest import tasks as rest
from slapos.master.settings import Profile
from slapos.master.tasks import tasks
from slapos.master.tasks.task import Task
from slapos.master.webhooks import tasks as webhooks

ROOMS: tuple[tuple[Task, ...], ...] = (
    nodes.TASKS,
    catalog.TASKS,
    provisioning.TASKS,
    rest.TASKS,
    audit.TASKS,
    identity.TASKS,
    mail.TASKS,
    monitoring.TASKS,
    tasks.TASKS,
    webhooks.TASKS,
    remote.TASKS,
)
TASKS: Mapping[str, Task] = {task.name: task for room in ROOMS for task in room}


def tasks_of(profile: Profile) -> Mapping[str, Task]:
    """Return the tasks of a profile."""
    is_local = profile is Profile.LOCAL
    return {name: task for name, task in TASKS.items() if task.in_local or not is_local}
