"""All checks of the master, in the order in which they are shown."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy.orm import Session

from slapos.master import migrations
from slapos.master.certificates import authorities
from slapos.master.certificates import service as certificates
from slapos.master.certificates.authorities import PURPOSE, Issuing
from slapos.master.database import Database, open_database
from slapos.master.doctor.at_work import check_left, check_nodes, check_people, check_tasks
from slapos.master.doctor.machine import check_answers, check_certificate, check_space, check_url
from slapos.master.identity.caller import SYSTEM
from slapos.master.identity.secret_box import SecretBox
from slapos.master.migrations import DatabaseUnusable
from slapos.master.secret_file import SecretUnusable, read_secret
from slapos.master.settings import Settings
from slapos.system.clock import Clock
from slapos.system.finding import Finding, ok, problem, warning

#: Seconds by which the clock of the database's machine may differ from ours.
SMALL_DIFFERENCE, LARGE_DIFFERENCE = 1.0, 10.0
#: Days before its end at which the authority should be followed by another one.
AUTHORITY_NOTICE = 180

Found = Iterator[tuple[str, Finding]]


@dataclass(frozen=True)
class Examined:
    """The master that is examined."""

    settings: Settings
    session: Session
    clock: Clock


_WITH_DATABASE: tuple[tuple[str, Callable[[Session, Settings, Clock], Iterator[Finding]]], ...] = (
    ("tasks", check_tasks),
    ("nodes", check_nodes),
    ("left", check_left),
    ("people", check_people),
)


def examine(settings: Settings, clock: Clock) -> Found:
    """Yield what each check finds; nothing is changed."""
    for name, check in (("disk", check_space), ("address", check_url)):
        yield from ((name, each) for each in check(settings))
    yield from (("certificate", each) for each in check_certificate(settings, clock))
    yield from (("web server", each) for each in check_answers(settings))
    secret, found = _secret(settings)
    yield "secret", found
    database = open_database(settings.database_url, threads=1, caller=SYSTEM)
    with closing(database):
        before = clock.monotonic()
        fits, found = _schema(database)
        yield "database", found
        if not fits:
            return
        with database.reading() as session:
            yield "clock", _clock(session, clock, clock.monotonic() - before)
            if secret is not None:
                yield from (("authority", each) for each in _authority(session, clock, secret))
            for name, look in _WITH_DATABASE:
                yield from ((name, each) for each in look(session, settings, clock))


def _secret(settings: Settings) -> tuple[bytes | None, Finding]:
    assert settings.secret_file is not None
    try:
        secret = read_secret(settings.secret_file)
    except SecretUnusable as error:
        return None, problem(str(error), "correct that; without it the master does not start")
    return secret, ok(f"{settings.secret_file} is for its owner only")


def _schema(database: Database) -> tuple[bool, Finding]:
    shown = database.engine.url.render_as_string(hide_password=True)
    try:
        found = migrations.found_version(database)
    except DatabaseUnusable as error:
        return False, problem(str(error), "correct database_uri, or start the database")
    if found == migrations.HEAD:
        return True, ok(f"{shown} answers, and has the schema {found}")
    if found is None:
        return False, problem(f"{shown} is empty", "slapos master init")
    return False, problem(
        f"{shown} has the schema {found}, this version has {migrations.HEAD}",
        "end all masters, then: slapos master upgrade",
    )


def _clock(session: Session, clock: Clock, took: float) -> Finding:
    if session.get_bind().dialect.name == "sqlite":
        return ok("the database is on this machine, with the same clock")
    ours = clock.now()
    theirs = session.connection().exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    ahead = (ours - theirs).total_seconds()
    if abs(ahead) <= SMALL_DIFFERENCE + took:
        return ok(f"the clocks of the database and of this machine differ by {abs(ahead):.1f} s")
    side = "before" if ahead > 0 else "behind"
    found = f"the clock of this machine is {abs(ahead):.1f} s {side} that of the database"
    remedy = "set the clocks of all machines by NTP, such as with chrony or systemd-timesyncd"
    return (problem if abs(ahead) > LARGE_DIFFERENCE else warning)(found, remedy)


def _authority(session: Session, clock: Clock, secret: bytes) -> Iterator[Finding]:
    try:
        authority = authorities.active_authority(session, clock)
        certificates.revocations(session, Issuing(clock, SecretBox(secret, PURPOSE)))
    except authorities.NoAuthority as error:
        yield problem(str(error), "slapos master init")
        return
    except SecretUnusable as error:
        yield problem(str(error), "put the right secret file there: nothing else can read it")
        return
    days = (authority.not_after - clock.now()).days
    if days < AUTHORITY_NOTICE:
        yield warning(
            f"the certificate authority ends in {days} days, and all that it has signed with it",
            "slapos master ca rotate, and `slapos master ca retire` some weeks later",
        )
    else:
        yield ok(f"the certificate authority counts until {authority.not_after:%Y-%m-%d}")
