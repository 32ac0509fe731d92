"""Certificates that are renewed: over real TLS, by the calls of the agent and of commands."""

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from slapos.node.enrolment.join import JoinOrder, join
from slapos.node.enrolment.renewal import FIRST_WAIT, LOOK_INTERVAL, Renewal, make_renewal
from slapos.node.settings import NodeSettings, read_node_settings
from slapos.protocol.errors import Forbidden, MasterFailed, MasterUnreachable, Unauthorized
from slapos.protocol.http_client import HttpClient, HttpSettings
from slapos.protocol.join_token import JoinToken
from slapos.system.clock import SystemClock
from slapos.system.credentials import Credentials, renew
from tests.fakes import FakeClock, FakeIdentifiers
from tests.integration.node.fake_authority import (
    DAY,
    FakeAuthority,
    FakeCertifyingMaster,
    context_of,
    now,
)
from tests.integration.node.fake_master import running_master

RENEWALS = "v1/certificates/renewals"


@pytest.fixture
def master() -> Iterator[FakeCertifyingMaster]:
    made = FakeCertifyingMaster()
    with running_master(made):
        yield made


def joined(master: FakeCertifyingMaster, folder: Path, *, age: timedelta) -> NodeSettings:
    """Join with a certificate that is so old already; later ones are new."""
    master.age = age
    order = JoinOrder(
        master_url=master.url,
        token=JoinToken.parse(master.new_token()),
        name="edge-1",
        configuration=folder / "slapos.cfg",
        fresh=f"[slapos]\nsoftware_root = {folder}/soft\ninstance_root = {folder}/inst\n",
    )
    join(order, SystemClock())
    master.age = timedelta()
    master.asked_by.clear()
    return read_node_settings(folder / "slapos.cfg", {"request_timeout": 5.0})


def renewal_of(settings: NodeSettings, clock: FakeClock | None = None) -> Renewal:
    made = make_renewal(settings, clock or SystemClock(), FakeIdentifiers())
    assert made is not None
    return made


def credentials_of(settings: NodeSettings) -> Credentials:
    assert settings.key_file is not None
    assert settings.cert_file is not None
    return Credentials(
        master_url=settings.master_url,
        key_file=settings.key_file,
        certificate_file=settings.cert_file,
        authority_file=settings.master_ca_file,
        timeout=5.0,
    )


def serial(settings: NodeSettings) -> int:
    assert settings.cert_file is not None
    return x509.load_pem_x509_certificate(settings.cert_file.read_bytes()).serial_number


def test_before_two_thirds_of_its_life_nothing_is_asked(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=9 * DAY)
    assert renewal_of(settings).run_pending() == LOOK_INTERVAL
    assert master.asked_by == []


def test_a_certificate_is_renewed_by_itself_with_another_key(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    before, key = serial(settings), credentials_of(settings).key_file.read_bytes()
    assert renewal_of(settings).run_pending() == LOOK_INTERVAL
    assert master.asked_by == [(RENEWALS, "slapos:node:COMP-1")]
    assert serial(settings) == master.issued[-1].serial_number != before
    credentials = credentials_of(settings)
    assert credentials.key_file.read_bytes() != key
    assert credentials.key_file.stat().st_mode & 0o777 == 0o600
    assert credentials.certificate().not_after > now() + 13 * DAY
    # The key before is nowhere any more, and the next renewal does the same.
    renew(credentials, SystemClock())
    kept = {path.read_bytes() for path in credentials.key_file.parent.rglob("*key*.pem")}
    assert kept == {credentials.key_file.read_bytes()} != {key}
    assert _fits(credentials)


@pytest.mark.parametrize("late", [timedelta(minutes=1), 89 * DAY])
def test_one_that_has_expired_is_renewed_by_a_request_that_its_key_signed(
    master: FakeCertifyingMaster, tmp_path: Path, late: timedelta
) -> None:
    settings = joined(master, tmp_path, age=14 * DAY + late)
    renewal_of(settings).run_pending()
    assert master.asked_by == [(RENEWALS, "")]
    assert credentials_of(settings).certificate().not_after > now()


def test_where_the_certificate_does_not_arrive_the_key_proves_it(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    assert isinstance(master.context, ssl.SSLContext)
    master.context.verify_mode = ssl.CERT_NONE  # as behind a proxy that asks for none
    renewal_of(settings).run_pending()
    assert master.asked_by == [(RENEWALS, "")] * 2
    assert serial(settings) == master.issued[-1].serial_number


def _fits(credentials: Credentials) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(credentials.certificate_file, credentials.key_file)
    return True


def test_the_key_that_an_answer_was_lost_for_is_asked_for_again(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    master.drops = {RENEWALS}
    for _ in range(2):
        with pytest.raises(MasterUnreachable):
            renew(credentials_of(settings), SystemClock())
    master.drops = set()
    renew(credentials_of(settings), SystemClock())
    assert len({each.public_key().public_numbers() for each in master.issued[1:]}) == 1  # type: ignore[union-attr]
    next_key = credentials_of(settings).next_key
    assert next_key is not None
    assert not next_key.exists()


class _Cut(BaseException):
    pass


@pytest.mark.parametrize("is_first", [True, False], ids=["the first", "a later one"])
def test_cut_short_at_any_point_key_and_certificate_fit_together(
    master: FakeCertifyingMaster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_first: bool,
) -> None:
    """At each call by which a file or a link gets its name."""
    for last in range(1, 20):
        folder = tmp_path / str(last)
        folder.mkdir()
        credentials = credentials_of(joined(master, folder, age=10 * DAY))
        if not is_first:
            renew(credentials, SystemClock())
        if not _is_cut(credentials, last, monkeypatch):
            break
        assert _fits(credentials)
        renew(credentials, SystemClock())
        assert _fits(credentials)
        assert len(list(credentials.key_file.parent.glob("pair-*"))) == 1
    assert last > (8 if is_first else 4)


def _is_cut(credentials: Credentials, last: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Renew, be cut short before the `last` name is given; return whether there were so many."""
    replace, names = os.replace, []

    def cutting(source: str | Path, target: str | Path) -> None:
        names.append(target)
        if len(names) == last:
            raise _Cut
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cutting)
        try:
            renew(credentials, SystemClock())
        except _Cut:
            return True
    return False


def test_a_revoked_certificate_is_not_renewed_and_stays_as_it_is(
    master: FakeCertifyingMaster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    before = serial(settings)
    master.revoked.add(before)
    with pytest.raises((Unauthorized, Forbidden)):
        renew(credentials_of(settings), SystemClock())
    renewal = renewal_of(settings)
    assert renewal.run_pending() <= FIRST_WAIT
    assert renewal.run_pending() > FIRST_WAIT / 2
    assert serial(settings) == before
    assert len([r for r in caplog.records if "not renewed" in r.message]) == 1


def test_while_the_master_is_away_it_is_tried_less_and_less_often(tmp_path: Path) -> None:
    with running_master(FakeCertifyingMaster()) as master:
        assert isinstance(master, FakeCertifyingMaster)
        settings = joined(master, tmp_path, age=10 * DAY)
    renewal = renewal_of(settings)
    first, second = renewal.run_pending(), renewal.run_pending()
    assert first < second <= LOOK_INTERVAL


def test_an_answer_that_is_lost_changes_nothing_here(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    before = serial(settings)
    master.drops = {RENEWALS}
    with pytest.raises(MasterUnreachable):
        renew(credentials_of(settings), SystemClock())
    assert serial(settings) == before
    master.drops = set()
    renew(credentials_of(settings), SystemClock())
    assert serial(settings) != before


def test_a_certificate_of_somebody_else_is_not_put_in_place(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    before = serial(settings)
    issue = master._issue
    master._issue = lambda uri, given, status=200: issue(  # type: ignore[method-assign]
        "slapos:node:COMP-2", given, status
    )
    with pytest.raises(MasterFailed, match="COMP-2"):
        renew(credentials_of(settings), SystemClock())
    assert serial(settings) == before


def test_a_rotation_of_the_authority_is_learned_within_a_day(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=timedelta())
    successor = FakeAuthority("successor")
    master.also_claimed = [successor.certificate]
    clock = FakeClock(now() + DAY / 2)
    renewal = renewal_of(settings, clock)
    renewal.run_pending()
    assert master.asked_by == []
    clock.advance(86400)
    renewal.run_pending()
    assert master.asked_by == [("v1/authority", "")]
    # The next server's certificate is the successor's: who has waited since then trusts it.
    served = FakeCertifyingMaster(authority=successor)
    served.context = context_of(successor, [successor, master.authority])
    with running_master(served):
        client = HttpClient(
            HttpSettings(base_url=served.url, authority_file=settings.master_ca_file, retries=0)
        )
        assert client.request("GET", "v1/authority").status_code == 200
        client.close()


def test_an_authority_that_somebody_else_put_there_is_left_alone(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    assert settings.master_ca_file is not None
    own = tmp_path / "our-own.pem"
    own.write_bytes(settings.master_ca_file.read_bytes())
    text = (tmp_path / "slapos.cfg").read_text()
    (tmp_path / "slapos.cfg").write_text(text.replace(str(settings.master_ca_file), str(own)))
    changed = read_node_settings(tmp_path / "slapos.cfg", {})
    master.also_claimed = [FakeAuthority("other").certificate]
    renewal_of(changed).run_pending()
    assert serial(changed) == master.issued[-1].serial_number
    assert own.read_text() == master.authority.certificate


def test_killed_at_any_moment_key_and_certificate_fit_together(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    credentials = credentials_of(settings)
    script = (
        "import sys; from pathlib import Path\n"
        "from slapos.system.credentials import Credentials, renew\n"
        "from slapos.system.clock import SystemClock\n"
        "url, *paths = sys.argv[1:]; key, certificate, authority = map(Path, paths)\n"
        "given = Credentials(master_url=url, key_file=key, certificate_file=certificate,\n"
        "                    authority_file=authority)\n"
        "while True: renew(given, SystemClock())\n"
    )
    paths = (credentials.key_file, credentials.certificate_file, credentials.authority_file)
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", script, master.url, *map(str, paths)], stderr=subprocess.DEVNULL
        )
        begun = len(master.issued)
        while len(master.issued) <= begun + number:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert _fits(credentials)
    renew(credentials, SystemClock())


def test_without_tls_and_for_other_masters_nothing_is_renewed(
    master: FakeCertifyingMaster, tmp_path: Path
) -> None:
    settings = joined(master, tmp_path, age=10 * DAY)
    for name, value in (("master_url", "http://127.0.0.1/"), ("computer_id", "COMP-9")):
        changed = read_node_settings(tmp_path / "slapos.cfg", {name: value})
        assert make_renewal(changed, SystemClock(), FakeIdentifiers()) is None
    assert settings.computer_id == "COMP-1"
