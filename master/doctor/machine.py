"""What a master needs of its machine: room, a certificate, an address, and a web server there."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cryptography import x509
from sqlalchemy import make_url

from slapos.master.settings import Settings
from slapos.master.web import listening
from slapos.protocol.errors import InvalidConfiguration
from slapos.system.clock import Clock
from slapos.system.finding import Finding, ok, problem, warning

#: Bytes that should be free, and without which nothing goes.
WANTED, NEEDED = 2 * 1024**3, 200 * 1024**2
#: Days before its end at which a given certificate should have been replaced.
NOTICE = 14
#: Seconds in which something on this machine takes a connection.
PATIENCE = 3.0


def check_space(settings: Settings) -> Iterator[Finding]:
    """See that there is room for what the master writes."""
    assert settings.data_directory is not None
    url = make_url(settings.database_url)
    folders = {settings.data_directory}
    if url.get_backend_name() == "sqlite":
        folders.add(Path(url.database or "").parent)
    for folder in sorted(folders):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield problem(f"{folder}: {error.strerror}", "slapos master init")
            continue
        found = f"{folder} has {free / 1024**3:.1f} GB free"
        if free >= WANTED:
            yield ok(found)
        else:
            level = problem if free < NEEDED else warning
            yield level(found, "make room: the database grows, and stops when the disk is full")
        if not os.access(folder, os.W_OK):
            yield warning(f"this user may not write in {folder}", "run this as the master's user")


def check_url(settings: Settings) -> Iterator[Finding]:
    """See that the master listens where it may, and knows how it is reached."""
    try:
        listening.refuse_unsafe(settings)
    except InvalidConfiguration as error:
        yield problem(str(error), "correct the settings file")
    if settings.public_url:
        yield ok(f"others reach it as {settings.public_url}")
    elif not listening.is_loopback(settings.host):
        yield warning(
            "public_url is not set: links that it makes name its address here",
            "set public_url in the settings file to how others reach it",
        )


def check_certificate(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """See that a given certificate can be used, and for how long."""
    path = settings.certificate_file
    if path is None:
        return
    try:
        listening.check_certificate(settings)
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (InvalidConfiguration, OSError, ValueError) as error:
        yield problem(str(error), "correct certificate_file and key_file")
        return
    days = (end - clock.now()).days
    if days >= NOTICE:
        yield ok(f"{path} counts for {days} days")
    elif days >= 0:
        yield warning(f"{path} ends in {days} days", "renew it: a new file is taken over by itself")
    else:
        yield problem(f"{path} has ended {-days} days ago", "put a new certificate there")


def check_answers(settings: Settings) -> Iterator[Finding]:
    """See that something takes connections where the master is to listen."""
    if settings.port == 0:
        return
    url = listening.own_url(settings)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    try:
        with closing(socket.create_connection((host, settings.port), PATIENCE)):
            yield ok(f"{url} takes connections")
    except OSError as error:
        yield warning(
            f"{url} takes no connections: {error.strerror or error}",
            "slapos master start, or slapos master install-service",
        )
