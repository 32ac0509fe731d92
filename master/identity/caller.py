"""Who asks: it travels with the session, so that services know whom they serve."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

_CALLER = "slapos_caller"


class Role(StrEnum):
    """What a person does in a project, or everywhere (slap-master's functions)."""

    ADMINISTRATOR = "administrator"
    CUSTOMER = "customer"
    PRODUCTION_AGENT = "production_agent"
    PRODUCTION_MANAGER = "production_manager"
    SALE_AGENT = "sale_agent"
    SALE_MANAGER = "sale_manager"
    ACCOUNTING_AGENT = "accounting_agent"
    ACCOUNTING_MANAGER = "accounting_manager"
    SUPPORT = "support"


class CallerKind(StrEnum):
    """What sort of caller it is."""

    #: Whoever reaches the local master: it is one person's, on one machine.
    LOCAL = "local"
    #: The master itself: its tasks and commands.
    SYSTEM = "system"
    ANONYMOUS = "anonymous"
    PERSON = "person"
    NODE = "node"
    INSTANCE = "instance"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks.

    `name` is its reference, such as P-1, COMP-2, SOFTINST-3. `memberships` are a person's: a
    project's id (None: everywhere) and a role. `project_id` is that of a node or an instance,
    `tree_id` that of an instance. `scopes` are those of its token, None when it may all that its
    roles may. `closed_projects` are those of its projects that are suspended or archived. One
    that `must_enrol` has to have a second factor before anything else.
    """

    kind: CallerKind
    name: str
    id: int | None = None
    memberships: frozenset[tuple[int | None, Role]] = frozenset()
    project_id: int | None = None
    tree_id: int | None = None
    scopes: frozenset[str] | None = None
    closed_projects: frozenset[int] = frozenset()
    must_enrol: bool = False

    @property
    def may_all(self) -> bool:
        """Whether it is bound by no right: the local master's user, and the master itself."""
        return self.kind in (CallerKind.LOCAL, CallerKind.SYSTEM)


LOCAL = Caller(kind=CallerKind.LOCAL, name="local")
SYSTEM = Caller(kind=CallerKind.SYSTEM, name="system")
ANONYMOUS = Caller(kind=CallerKind.ANONYMOUS, name="anonymous")


def serve(session: Session, caller: Caller) -> None:
    """Have a session act for a caller."""
    session.info[_CALLER] = caller


def caller_of(session: Session) -> Caller:
    """Return whom a session acts for; one that acts for nobody is a fault of ours."""
    caller = session.info.get(_CALLER)
    if not isinstance(caller, Caller):
        raise LookupError("this session acts for nobody: call serve() first")
    return caller


def session_info(caller: Caller | None) -> dict[str, object]:
    """Return the `info` of a session maker whose sessions act for a caller unless told else."""
    return {} if caller is None else {_CALLER: caller}
