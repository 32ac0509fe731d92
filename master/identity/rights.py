"""Who may do what: one table, and the two questions that are asked of it.

Whoever may not even see a thing is told that it is not there, so that nobody learns by guessing.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Select, false, or_, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from slapos.master.identity.caller import Caller, CallerKind, Role, caller_of
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import Forbidden, NotFound, Unauthorized


class Action(StrEnum):
    """What may be done with a thing; its words are said in errors."""

    SEE = "see"
    #: See what it publishes and its parameters, which may hold secrets.
    SEE_VALUES = "see the values of"
    CREATE = "create"
    CHANGE = "change"
    DESTROY = "destroy"
    #: Say how it does.
    REPORT = "report on"
    #: Have certificates made for it, or end them.
    CERTIFY = "certify"
    #: Suspend or admit it, and say what it is known by elsewhere.
    ADMINISTER = "administer"


class Relation(StrEnum):
    """What a caller is to a thing, beside the roles of a person."""

    OWNER = "owner"
    #: The node itself, or the node that holds the thing.
    NODE = "node"
    #: An instance of the same tree.
    TREE = "tree"
    #: The instance that hosts a shared one.
    HOST = "host"
    #: Any instance of the same project.
    PROJECT_INSTANCE = "project instance"


class HasSubject(Protocol):
    """A thing that rights are asked on."""

    def subject(self) -> Subject:
        """Return what rights on it go by."""
        ...


_A = Action
_SEE = frozenset({_A.SEE})
_SEE_VALUES = frozenset({_A.SEE, _A.SEE_VALUES})
_USE = frozenset({_A.SEE, _A.SEE_VALUES, _A.CHANGE})
_OWN = frozenset({_A.SEE, _A.SEE_VALUES, _A.CREATE, _A.CHANGE, _A.DESTROY})
#: An owner's things are made by who may order or operate there, not by whoever says he owns them.
_KEEP = _OWN - {_A.CREATE}
_OPERATE = _OWN | {_A.REPORT, _A.CERTIFY}
_ALL = frozenset(Action)
_PRODUCTION: dict[str, frozenset[Action]] = {
    Role.PRODUCTION_AGENT: _OWN,
    Role.PRODUCTION_MANAGER: _OPERATE,
}
_SALE: dict[str, frozenset[Action]] = {Role.SALE_AGENT: _SEE, Role.SALE_MANAGER: _SEE}
_SALE_CHANGES: dict[str, frozenset[Action]] = {
    Role.SALE_AGENT: _OWN - {_A.DESTROY},
    Role.SALE_MANAGER: _OWN,
}
_ACCOUNTING: dict[str, frozenset[Action]] = {
    Role.ACCOUNTING_AGENT: _SEE,
    Role.ACCOUNTING_MANAGER: _SEE,
}

#: Kind → role or relation → what it may. An administrator may all; nobody else may anything else.
RIGHTS: Mapping[Kind, Mapping[str, frozenset[Action]]] = {
    Kind.TREE: {
        Relation.OWNER: _KEEP,
        Relation.TREE: _USE,
        Role.CUSTOMER: frozenset({_A.CREATE}),
        **_PRODUCTION,
        **_SALE,
        Role.SUPPORT: _SEE,
    },
    Kind.INSTANCE: {
        Relation.OWNER: _KEEP,
        # Instances of a tree trust each other.
        Relation.TREE: _OWN | {_A.REPORT},
        Relation.HOST: frozenset({_A.SEE, _A.SEE_VALUES, _A.CHANGE, _A.REPORT}),
        Relation.NODE: frozenset({_A.SEE, _A.SEE_VALUES, _A.CHANGE, _A.REPORT, _A.CERTIFY}),
        **_PRODUCTION,
        Role.SUPPORT: _SEE,
    },
    Kind.NODE: {
        # What operators say of it, and what becomes of it, is not its own business.
        Relation.NODE: frozenset({_A.SEE, _A.SEE_VALUES, _A.REPORT, _A.CERTIFY}),
        Relation.PROJECT_INSTANCE: _SEE,
        Role.CUSTOMER: _SEE,
        **_PRODUCTION,
        **_SALE,
        Role.SUPPORT: _SEE,
    },
    Kind.INSTALLATION: {
        Relation.NODE: frozenset({_A.SEE, _A.REPORT}),
        Role.CUSTOMER: _SEE,
        **_PRODUCTION,
        Role.SUPPORT: _SEE,
    },
    Kind.NETWORK: {Role.CUSTOMER: _SEE, **_PRODUCTION, Role.SUPPORT: _SEE},
    Kind.JOIN_TOKEN: _PRODUCTION,
    Kind.PRODUCT: {
        Role.CUSTOMER: _SEE,
        Relation.PROJECT_INSTANCE: _SEE,
        **_PRODUCTION,
        **_ACCOUNTING,
        **_SALE,
        Role.SUPPORT: _SEE,
    },
    Kind.SUPPLY: {Role.CUSTOMER: _SEE, **_PRODUCTION, Role.SUPPORT: _SEE},
    Kind.PRIVATE_SUPPLY: {Relation.OWNER: _SEE, **_PRODUCTION, Role.SUPPORT: _SEE},
    Kind.INSTANCE_NODE: {
        Role.CUSTOMER: _SEE,
        Relation.PROJECT_INSTANCE: _SEE,
        **_PRODUCTION,
        Role.SUPPORT: _SEE,
    },
    Kind.REMOTE_NODE: {
        Role.CUSTOMER: _SEE,
        Relation.PROJECT_INSTANCE: _SEE,
        **_PRODUCTION,
        Role.SUPPORT: _SEE,
    },
    Kind.PROJECT: {
        # So whoever has an account may make a project of his own.
        Relation.OWNER: _OWN,
        Role.CUSTOMER: _SEE,
        Role.PRODUCTION_AGENT: _SEE,
        Role.PRODUCTION_MANAGER: _USE,
        Role.SALE_AGENT: _OWN - {_A.DESTROY},
        Role.SALE_MANAGER: _OWN | {_A.ADMINISTER},
        **_ACCOUNTING,
        Role.SUPPORT: _SEE,
    },
    # To give a role everywhere, or one that is about money, is to administer memberships.
    Kind.MEMBERSHIP: {
        Relation.OWNER: _OWN,
        Role.PRODUCTION_AGENT: _SEE,
        Role.PRODUCTION_MANAGER: _OWN,
        **_SALE,
    },
    Kind.INVITATION: {Role.PRODUCTION_MANAGER: _OWN},
    Kind.PERSON: {
        Relation.OWNER: _USE,
        **_SALE_CHANGES,
        Role.ACCOUNTING_AGENT: _SEE,
        Role.ACCOUNTING_MANAGER: _USE,
        Role.SUPPORT: _SEE,
    },
    Kind.ORGANISATION: {
        **_SALE_CHANGES,
        Role.ACCOUNTING_AGENT: _SEE,
        Role.ACCOUNTING_MANAGER: _USE,
    },
    Kind.TOKEN: {Relation.OWNER: _OWN},
    Kind.CERTIFICATE: {
        Relation.OWNER: _OWN | {_A.CERTIFY},
        Relation.NODE: frozenset({_A.SEE, _A.CERTIFY}),
        **_PRODUCTION,
    },
    Kind.AUTHORITY: {},
    Kind.TASK: {Role.PRODUCTION_MANAGER: _SEE},
    Kind.AUDIT: {Role.PRODUCTION_MANAGER: _SEE, Relation.OWNER: _SEE},
    Kind.WEBHOOK: {Relation.OWNER: _OWN, Role.PRODUCTION_MANAGER: _OWN},
}

#: Roles that a project's own people give and take.
GIVEN_IN_PROJECTS = frozenset(
    {Role.CUSTOMER, Role.PRODUCTION_AGENT, Role.PRODUCTION_MANAGER, Role.SUPPORT}
)

#: Kinds by which somebody gets rights, or shows who she is. A token gives none of either: whoever
#: found it could make another one, or let himself in.
ACCOUNTS = frozenset(
    {
        Kind.PERSON,
        Kind.ORGANISATION,
        Kind.MEMBERSHIP,
        Kind.INVITATION,
        Kind.TOKEN,
        Kind.AUTHORITY,
    }
)
_ORDERED = frozenset({Kind.TREE, Kind.INSTANCE})
_OPERATED = frozenset(Kind) - ACCOUNTS

#: What a token's scope lets its owner do, as far as her roles do: with which kinds what. With any
#: scope everything can be seen that she may see. A caller without scopes is not bound by them.
SCOPES: Mapping[str, Mapping[Kind, frozenset[Action]]] = {
    "read": {},
    "order": dict.fromkeys(_ORDERED, _OWN),
    "operate": dict.fromkeys(_OPERATED, _ALL),
}


def _within_scopes(caller: Caller, action: Action, subject: Subject) -> bool:
    """Return whether the scopes of a caller's token leave it an action."""
    if caller.scopes is None or action in _SEE_VALUES:
        return True
    if subject.kind is Kind.CERTIFICATE and subject.owner_id is not None:
        return False  # a person's: it would outlive the token
    return any(action in SCOPES[scope].get(subject.kind, ()) for scope in caller.scopes)


def may(caller: Caller, action: Action, subject: Subject) -> bool:
    """Return whether a caller may do something with a thing."""
    if caller.may_all:
        return True
    if not _within_scopes(caller, action, subject):
        return False
    table = RIGHTS[subject.kind]
    # In a project that is suspended or archived, its own people only look on.
    is_closed = subject.project_id in caller.closed_projects and action not in _SEE_VALUES
    return any(
        relation == Role.ADMINISTRATOR or action in table.get(relation, ())
        for relation in (roles_everywhere(caller) if is_closed else relations(caller, subject))
    )


def require(session: Session, action: Action, thing: HasSubject | Subject) -> None:
    """Raise unless the session's caller may: NotFound if it may not see it, else Forbidden."""
    caller = caller_of(session)
    if caller.may_all:
        return
    if caller.kind is CallerKind.ANONYMOUS:
        raise Unauthorized("sign in first, or show a certificate or a token")
    subject = thing if isinstance(thing, Subject) else thing.subject()
    if may(caller, action, subject):
        return
    if action is not Action.CREATE and not may(caller, Action.SEE, subject):
        raise not_there(subject)
    raise Forbidden(
        f"{caller.name} may not {action} the {subject.kind} {subject.name}; "
        "somebody with the role for it in its project can"
    )


def not_there(subject: Subject) -> NotFound:
    """Return what is said of a thing that is not there, or that one may not see."""
    return NotFound(f"there is no {subject.kind} {subject.name!r}, or you may not see it")


def relations(caller: Caller, subject: Subject) -> Iterator[str]:
    """Yield what a caller is to a thing: roles of a person, relations of a machine."""
    is_instance = caller.kind is CallerKind.INSTANCE
    pairs: tuple[tuple[Relation, int | None, int | None], ...] = (
        (Relation.OWNER, subject.owner_id, _id(caller, CallerKind.PERSON)),
        (Relation.NODE, subject.node_id, _id(caller, CallerKind.NODE)),
        (Relation.HOST, subject.host_id, _id(caller, CallerKind.INSTANCE)),
        (Relation.TREE, subject.tree_id, caller.tree_id if is_instance else None),
        (
            Relation.PROJECT_INSTANCE,
            subject.project_id,
            caller.project_id if is_instance else None,
        ),
    )
    for relation, its, callers in pairs:
        if callers is not None and its == callers:
            yield relation
    for project_id, role in caller.memberships:
        # Administrators are ones everywhere, so that nobody makes himself one in his project.
        if project_id is None or (
            project_id == subject.project_id and role is not Role.ADMINISTRATOR
        ):
            yield role


def roles_everywhere(caller: Caller) -> Iterator[str]:
    """Yield the roles that a person has not only in some project."""
    return (role for project_id, role in caller.memberships if project_id is None)


def _id(caller: Caller, kind: CallerKind) -> int | None:
    return caller.id if caller.kind is kind else None


def visible(
    session: Session,
    statement: Select[Any],
    kind: Kind,
    *,
    project: InstrumentedAttribute[Any] | None = None,
    owner: InstrumentedAttribute[Any] | None = None,
    node: InstrumentedAttribute[Any] | None = None,
    tree: InstrumentedAttribute[Any] | None = None,
    host: InstrumentedAttribute[Any] | None = None,
) -> Select[Any]:
    """Return a SELECT that leaves out what the session's caller may not see.

    The columns are those that a Subject of this kind has; without one, nobody is related by it.
    """
    caller = caller_of(session)
    if caller.may_all:
        return statement
    seeing = {name for name, actions in RIGHTS[kind].items() if Action.SEE in actions}
    seeing.add(Role.ADMINISTRATOR)
    is_instance = caller.kind is CallerKind.INSTANCE
    pairs = {
        Relation.OWNER: (owner, _id(caller, CallerKind.PERSON)),
        Relation.NODE: (node, _id(caller, CallerKind.NODE)),
        Relation.HOST: (host, _id(caller, CallerKind.INSTANCE)),
        Relation.TREE: (tree, caller.tree_id if is_instance else None),
        Relation.PROJECT_INSTANCE: (project, caller.project_id if is_instance else None),
    }
    conditions: list[ColumnElement[bool]] = [
        column == value
        for relation, (column, value) in pairs.items()
        if relation in seeing and column is not None and value is not None
    ]
    conditions += _by_role(caller, seeing, project)
    return statement.where(or_(false(), *conditions))


def _by_role(
    caller: Caller, seeing: Collection[str], project: InstrumentedAttribute[Any] | None
) -> Iterator[ColumnElement[bool]]:
    projects = set()
    for project_id, role in caller.memberships:
        if role not in seeing or (role is Role.ADMINISTRATOR and project_id is not None):
            continue
        if project_id is None:
            yield true()
            return
        projects.add(project_id)
    if projects and project is not None:
        yield project.in_(projects)
