"""Who may do what, as written down here, apart from the code: every role, relation, action, kind.

Each cell holds the first letters of what may be done: see, Values (see them), create, change (w),
destroy, report, certify (k), administer (a). What is not there is refused.
"""

import pytest
from sqlalchemy.orm import Session

from slapos.master.identity.caller import (
    ANONYMOUS,
    LOCAL,
    SYSTEM,
    Caller,
    CallerKind,
    Role,
    serve,
)
from slapos.master.identity.rights import Action, Relation, may, require
from slapos.master.identity.subject import Kind, Subject
from slapos.protocol.errors import Forbidden, NotFound, Unauthorized

LETTERS = {
    "s": Action.SEE,
    "v": Action.SEE_VALUES,
    "c": Action.CREATE,
    "w": Action.CHANGE,
    "d": Action.DESTROY,
    "r": Action.REPORT,
    "k": Action.CERTIFY,
    "a": Action.ADMINISTER,
}

RELATIONS = """
kind                       owner    node    tree     host   project-instance
instance tree              svwd     .       svw      .      .
instance                   svwd     svwrk   svcwdr   svwr   .
compute node               .        svrk    .        .      s
software installation      .        sr      .        .      .
network                    .        .       .        .      .
join token                 .        .       .        .      .
software product           .        .       .        .      s
allocation supply          .        .       .        .      .
private allocation supply  s        .       .        .      .
instance node              .        .       .        .      s
remote node                .        .       .        .      s
project                    svcwd    .       .        .      .
membership                 svcwd    .       .        .      .
invitation                 .        .       .        .      .
person                     svw      .       .        .      .
organisation               .        .       .        .      .
token                      svcwd    .       .        .      .
certificate                svcwdk   sk      .        .      .
authority                  .        .       .        .      .
task                       .        .       .        .      .
audit log                  s        .       .        .      .
webhook                    svcwd    .       .        .      .
"""

ROLES = """
kind                       customer  agent  manager   sale-agent sale-manager accounting-agent accounting-manager support
instance tree              c         svcwd  svcwdrk   s          s            .                .                  s
instance                   .         svcwd  svcwdrk   .          .            .                .                  s
compute node               s         svcwd  svcwdrk   s          s            .                .                  s
software installation      s         svcwd  svcwdrk   .          .            .                .                  s
network                    s         svcwd  svcwdrk   .          .            .                .                  s
join token                 .         svcwd  svcwdrk   .          .            .                .                  .
software product           s         svcwd  svcwdrk   s          s            s                s                  s
allocation supply          s         svcwd  svcwdrk   .          .            .                .                  s
private allocation supply  .         svcwd  svcwdrk   .          .            .                .                  s
instance node              s         svcwd  svcwdrk   .          .            .                .                  s
remote node                s         svcwd  svcwdrk   .          .            .                .                  s
project                    s         s      svw       svcw       svcwda       s                s                  s
membership                 .         s      svcwd     s          s            .                .                  .
invitation                 .         .      svcwd     .          .            .                .                  .
person                     .         .      .         svcw       svcwd        s                svw                s
organisation               .         .      .         svcw       svcwd        s                svw                .
token                      .         .      .         .          .            .                .                  .
certificate                .         svcwd  svcwdrk   .          .            .                .                  .
authority                  .         .      .         .          .            .                .                  .
task                       .         .      s         .          .            .                .                  .
audit log                  .         .      s         .          .            .                .                  .
webhook                    .         .      svcwd     .          .            .                .                  .
"""  # noqa: E501

SCOPED = """
kind                       read  order  operate
instance tree              sv    svcwd  svcwdrka
instance                   sv    svcwd  svcwdrka
compute node               sv    sv     svcwdrka
software installation      sv    sv     svcwdrka
network                    sv    sv     svcwdrka
join token                 sv    sv     svcwdrka
software product           sv    sv     svcwdrka
allocation supply          sv    sv     svcwdrka
private allocation supply  sv    sv     svcwdrka
instance node              sv    sv     svcwdrka
remote node                sv    sv     svcwdrka
project                    sv    sv     svcwdrka
membership                 sv    sv     sv
invitation                 sv    sv     sv
person                     sv    sv     sv
organisation               sv    sv     sv
token                      sv    sv     sv
certificate                sv    sv     svcwdrka
authority                  sv    sv     sv
task                       sv    sv     svcwdrka
audit log                  sv    sv     svcwdrka
webhook                    sv    sv     svcwdrka
"""

HERE, ELSEWHERE, ME, OTHER = 5, 6, 7, 8
COLUMNS = {
    "agent": "production_agent",
    "manager": "production_manager",
}
CALLERS = {
    Relation.OWNER: Caller(kind=CallerKind.PERSON, name="P-7", id=ME),
    Relation.NODE: Caller(kind=CallerKind.NODE, name="COMP-7", id=ME, project_id=ELSEWHERE),
    Relation.TREE: Caller(
        kind=CallerKind.INSTANCE, name="SOFTINST-7", id=OTHER, project_id=ELSEWHERE, tree_id=ME
    ),
    Relation.HOST: Caller(
        kind=CallerKind.INSTANCE, name="SOFTINST-7", id=ME, project_id=ELSEWHERE, tree_id=OTHER
    ),
    Relation.PROJECT_INSTANCE: Caller(
        kind=CallerKind.INSTANCE, name="SOFTINST-7", id=OTHER, project_id=HERE, tree_id=OTHER
    ),
}
ID_OF = {
    Relation.OWNER: "owner_id",
    Relation.NODE: "node_id",
    Relation.TREE: "tree_id",
    Relation.HOST: "host_id",
}


def read(table: str) -> list[tuple[Kind, str, frozenset[Action]]]:
    """Return the cells of a table."""
    head, *lines = table.strip().splitlines()
    columns = head.split()[1:]
    found = []
    for line in lines:
        (*words,) = line.split()
        cells = words[-len(columns) :]
        kind = Kind(" ".join(words[: -len(columns)]))
        for column, cell in zip(columns, cells, strict=True):
            actions = frozenset() if cell == "." else frozenset(LETTERS[each] for each in cell)
            found.append((kind, column, actions))
    return found


def allowed(caller: Caller, subject: Subject) -> frozenset[Action]:
    return frozenset(action for action in Action if may(caller, action, subject))


def subject(kind: Kind, **ids: int | None) -> Subject:
    """Return a thing that belongs to others, but for what is given."""
    others = {"project_id": HERE, "owner_id": OTHER + 1, "node_id": OTHER + 1}
    others |= {"tree_id": OTHER + 1, "host_id": OTHER + 1}
    return Subject(kind, "thing", **(others | ids))


def member(role: str, project: int | None) -> Caller:
    memberships = frozenset({(project, Role(role))})
    return Caller(kind=CallerKind.PERSON, name="P-7", id=ME, memberships=memberships)


def test_the_tables_are_whole() -> None:
    for table in (RELATIONS, ROLES, SCOPED):
        assert {kind for kind, _, _ in read(table)} == set(Kind)
    assert {role_of(column) for _, column, _ in read(ROLES)} == set(Role) - {Role.ADMINISTRATOR}
    assert {column.replace("-", " ") for _, column, _ in read(RELATIONS)} == set(Relation)


def role_of(column: str) -> str:
    return COLUMNS.get(column, column.replace("-", "_"))


@pytest.mark.parametrize(("kind", "column", "actions"), read(ROLES))
def test_a_role_counts_in_its_project_and_nowhere_else(
    kind: Kind, column: str, actions: frozenset[Action]
) -> None:
    role, thing = role_of(column), subject(kind)
    assert allowed(member(role, HERE), thing) == actions
    assert allowed(member(role, None), thing) == actions
    assert allowed(member(role, ELSEWHERE), thing) == frozenset()
    # What belongs to no project is not in one's project.
    assert allowed(member(role, HERE), subject(kind, project_id=None)) == frozenset()


@pytest.mark.parametrize(("kind", "column", "actions"), read(RELATIONS))
def test_a_relation_counts_for_what_is_related_and_nothing_else(
    kind: Kind, column: str, actions: frozenset[Action]
) -> None:
    relation = Relation(column.replace("-", " "))
    caller = CALLERS[relation]
    ids = {} if relation is Relation.PROJECT_INSTANCE else {ID_OF[relation]: ME}
    assert allowed(caller, subject(kind, **ids)) == actions
    assert allowed(caller, subject(kind, project_id=ELSEWHERE + 1)) == frozenset()
    # The same number as somebody of another kind means nothing.
    for other in set(CALLERS) - {relation, Relation.PROJECT_INSTANCE}:
        stranger = CALLERS[other]
        if ids and stranger.kind is not caller.kind:
            assert allowed(stranger, subject(kind, **ids)) == frozenset()


@pytest.mark.parametrize("kind", Kind)
def test_administrators_may_all_and_only_everywhere(kind: Kind) -> None:
    thing = subject(kind)
    for caller in (member("administrator", None), LOCAL, SYSTEM):
        assert allowed(caller, thing) == frozenset(Action)
    assert allowed(member("administrator", HERE), thing) == frozenset()
    assert allowed(ANONYMOUS, thing) == frozenset()


@pytest.mark.parametrize(("kind", "scope", "actions"), read(SCOPED))
def test_a_token_has_what_its_scopes_leave_of_the_roles(
    kind: Kind, scope: str, actions: frozenset[Action]
) -> None:
    roles = frozenset({(None, Role.ADMINISTRATOR)})
    caller = Caller(
        kind=CallerKind.PERSON, name="P-7", id=ME, memberships=roles, scopes=frozenset({scope})
    )
    assert allowed(caller, subject(kind, owner_id=None)) == actions
    without_roles = Caller(
        kind=CallerKind.PERSON, name="P-7", id=ME, scopes=frozenset({"read", "order", "operate"})
    )
    assert allowed(without_roles, subject(kind)) == frozenset()
    own = allowed(without_roles, subject(kind, owner_id=ME))
    if kind in (Kind.PERSON, Kind.TOKEN, Kind.CERTIFICATE, Kind.MEMBERSHIP):
        assert own <= {Action.SEE, Action.SEE_VALUES}


@pytest.mark.parametrize("kind", Kind)
def test_in_a_closed_project_its_people_look_on_and_others_go_on(kind: Kind) -> None:
    seen = {Action.SEE, Action.SEE_VALUES}
    for role in Role:
        open_one = member(role, HERE)
        closed = Caller(
            kind=CallerKind.PERSON,
            name="P-7",
            id=ME,
            memberships=open_one.memberships,
            closed_projects=frozenset({HERE}),
        )
        thing = subject(kind, owner_id=ME)
        assert allowed(closed, thing) == allowed(open_one, thing) & seen
        everywhere = Caller(
            kind=CallerKind.PERSON,
            name="P-7",
            id=ME,
            memberships=frozenset({(HERE, Role.CUSTOMER), (None, role)}),
            closed_projects=frozenset({HERE}),
        )
        assert allowed(everywhere, thing) >= allowed(member(role, None), subject(kind))


def refusal(caller: Caller, action: Action, thing: Subject) -> type[Exception] | None:
    session = Session()
    serve(session, caller)
    try:
        require(session, action, thing)
    except (Forbidden, NotFound, Unauthorized) as error:
        return type(error)
    return None


def test_what_one_may_not_see_is_not_there() -> None:
    thing = subject(Kind.NODE)
    assert refusal(member("customer", HERE), Action.SEE, thing) is None
    assert refusal(member("customer", HERE), Action.CHANGE, thing) is Forbidden
    assert refusal(member("customer", ELSEWHERE), Action.CHANGE, thing) is NotFound
    assert refusal(member("customer", ELSEWHERE), Action.CREATE, thing) is Forbidden
    assert refusal(ANONYMOUS, Action.SEE, thing) is Unauthorized


def test_a_session_that_acts_for_nobody_is_a_fault() -> None:
    with pytest.raises(LookupError):
        require(Session(), Action.SEE, subject(Kind.NODE))
